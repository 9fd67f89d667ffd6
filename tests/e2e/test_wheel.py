"""The wheel holds all that a server needs: installed alone, far from the checkout, it deploys an egg."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from testbed.server import Server

ROOT = Path(__file__).resolve().parent.parent.parent


def test_a_server_from_the_wheel_deploys(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():  # our own archive, and a name that climbs out fails here
            target = (installed / name).resolve()
            assert target.is_relative_to(installed.resolve())
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.read(name))
    (tmp_path / "elsewhere").mkdir()
    server = Server(tmp_path / "elsewhere" / "data", {"PYTHONPATH": str(installed)})
    try:
        server.start()
        where = subprocess.run(
            [sys.executable, "-c", "import iceshelves; print(iceshelves.__file__)"],
            env={**os.environ, **server.environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        assert where.stdout.startswith(str(installed))
        assert {egg["name"] for egg in server.get("/eggs?per_page=100")["eggs"]} >= {
            "hello-web",
            "debian-base",
        }
        server.post("/clusters", name="fake", provider="fake")
        accepted = server.post("/deploy", egg="hello-web", cluster="fake", instance_name="web")
        assert server.wait(accepted["operation_id"])["status"] == "succeeded"
    finally:
        if server.process is not None and server.process.poll() is None:
            server.kill()
