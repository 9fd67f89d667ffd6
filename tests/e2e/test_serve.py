"""The server as a process: how it starts, what it refuses, and that it stops within seconds."""

from __future__ import annotations

import json
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from iceshelves.core.errors import NotFound
from iceshelves.core.settings import Settings
from iceshelves.server.serve import renew_admin_token

_SERVE = """
import sys
from pathlib import Path
from iceshelves.core.errors import IceShelvesError
from iceshelves.core.settings import Settings
from iceshelves.server.serve import Listening, serve
data, port, token_file = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
try:
    serve(Settings(data=data), Listening("127.0.0.1", port), Path(token_file) if token_file else None)
except IceShelvesError as error:
    print(f"{error.code}: {error.message}", file=sys.stderr)
    sys.exit(1)
"""


class Process:
    """A server that was started; ``port`` once it said that it is ready."""

    def __init__(self, data: Path, port: int = 0, token_file: Path | str = "") -> None:
        self.child = subprocess.Popen(
            [sys.executable, "-c", _SERVE, str(data), str(port), str(token_file)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.child.stdout is not None
        self.line = self.child.stdout.readline()
        self.port = int(self.line.split(":")[-1].split("/")[0]) if self.line else 0

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[float, str]:
        """Seconds until it was gone, and what it said on stderr."""
        begun = time.monotonic()
        self.child.send_signal(number)
        _, said = self.child.communicate(timeout=20)
        return time.monotonic() - begun, said


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    running: list[Process] = []

    def begin(*arguments: Any, **more: Any) -> Process:
        running.append(Process(*arguments, **more))
        return running[-1]

    yield begin
    for process in running:
        process.child.kill()
        process.child.communicate()


def ask(port: int, token: str, method: str, path: str, body: Any = None) -> Any:
    with closing(HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        connection.request(method, f"/iceshelves{path}", json.dumps(body) if body else None, headers)
        answer = connection.getresponse()
        return json.load(answer)


def test_the_first_token_is_shown_once(start: Callable[..., Process], tmp_path: Path) -> None:
    server = start(tmp_path / "data")
    assert server.line.startswith("IceShelves ")
    assert server.line.endswith(f" ready at http://127.0.0.1:{server.port}/iceshelves\n")
    _, said = server.stop()
    token = next(word for word in said.split() if word.startswith("isv_"))
    assert f"iceshelves login http://127.0.0.1:{server.port}/iceshelves" in said
    again = start(tmp_path / "data")
    assert ask(again.port, token, "GET", "/api/whoami")["role"] == "admin"
    _, said = again.stop()
    assert said == ""


def test_the_token_is_renewed_beside_a_running_server(start: Callable[..., Process], tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        renew_admin_token(Settings(data=tmp_path / "data"))
    assert not (tmp_path / "data").exists()
    server = start(tmp_path / "data", token_file=tmp_path / "token")
    renewed = renew_admin_token(Settings(data=tmp_path / "data"))
    assert ask(server.port, renewed.reveal(), "GET", "/api/whoami")["role"] == "admin"
    former = (tmp_path / "token").read_text().strip()
    assert ask(server.port, former, "GET", "/api/whoami")["error_code"] == "invalid_token"


def test_the_token_file_is_for_its_owner_alone(start: Callable[..., Process], tmp_path: Path) -> None:
    file = tmp_path / "token"
    server = start(tmp_path / "data", token_file=file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert ask(server.port, file.read_text().strip(), "GET", "/api/whoami")["name"] == "admin"
    assert "isv_" not in server.stop()[1]
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


def test_what_keeps_it_from_starting(start: Callable[..., Process], tmp_path: Path) -> None:
    first = start(tmp_path / "data", token_file=tmp_path / "token")
    (tmp_path / "file").write_text("")
    for data, port, code in (
        (tmp_path / "data", 0, "data_in_use"),
        (tmp_path / "other", first.port, "address_in_use"),
        (tmp_path / "file" / "data", 0, "data_not_writable"),
    ):
        second = start(data, port)
        _, said = second.child.communicate(timeout=20)
        assert second.line == ""
        assert said.startswith(f"{code}: "), said
        assert second.child.returncode == 1
    assert ask(first.port, "", "GET", "/api")["success"] is True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_within_three_seconds_whatever_is_open(
    start: Callable[..., Process], tmp_path: Path, number: signal.Signals
) -> None:
    server = start(tmp_path / "data", token_file=tmp_path / "token")
    token = (tmp_path / "token").read_text().strip()
    cluster = {"name": "lab", "provider": "fake", "endpoint_url": "fake://stop"}
    ask(server.port, token, "POST", "/api/clusters", cluster)
    body = {"egg": "hello-web", "cluster": "lab", "instance_name": "web-1"}
    made = ask(server.port, token, "POST", "/api/deploy", body)
    until = time.monotonic() + 20
    while (
        ask(server.port, token, "GET", f"/api/deployments/{made['deployment_id']}")["status"] != "completed"
    ):
        assert time.monotonic() < until  # there is nothing to enter before the instance is there
        time.sleep(0.05)
    headers = {"Authorization": f"Bearer {token}"}
    url = f"ws://127.0.0.1:{server.port}/iceshelves/api/deployments/{made['deployment_id']}/exec"
    with (
        closing(HTTPConnection("127.0.0.1", server.port, timeout=10)) as stream,
        connect(url, additional_headers=headers),
        socket.create_connection(("127.0.0.1", server.port)) as silent,
    ):
        stream.request("GET", f"/iceshelves/api/deployments/{made['deployment_id']}/events", headers=headers)
        answer = stream.getresponse()
        assert answer.readline().startswith(b"id: ")
        silent.sendall(b"POST /iceshelves/api/deploy HTTP/1.1\r\nContent-Length: 100\r\n")
        seconds, _ = server.stop(number)
    assert seconds < 3.0


def test_it_takes_little_memory_and_shows_no_token(start: Callable[..., Process], tmp_path: Path) -> None:
    server = start(tmp_path / "data", token_file=tmp_path / "token")
    folder = Path(f"/proc/{server.child.pid}")
    lines = (folder / "status").read_text().splitlines()
    resident = int(next(line for line in lines if line.startswith("VmRSS")).split()[1])
    assert resident < 150 * 1024
    assert "isv_" not in (folder / "cmdline").read_text() + (folder / "environ").read_text()
