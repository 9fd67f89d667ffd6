"""The whole OpenAPI description against a real server: what it says is true, whatever is sent to it.

Schemathesis makes the requests.  It runs twice: as an administrator who may do everything, and as the
administrator of another tenant, who must neither see nor change anything of the first.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

CANARY = "canary-5e1f0c"
#: seconds each run may take
BUDGET = 25
_SERVE = """
import sys
from pathlib import Path
from iceshelves.core.settings import Settings
from iceshelves.server.serve import serve
serve(Settings(data=Path(sys.argv[1])), "127.0.0.1", 0, Path(sys.argv[2]))
"""
# no schema can say which bytes are a packed egg
_CONFIGURATION = """
[[operations]]
include-path = "/iceshelves/api/eggs/import"
checks.positive_data_acceptance.enabled = false
"""
#: administrators of the first tenant and of another; their ids are out of reach, lest a run revoke its own token
_IDENTITIES = """
import sys
from iceshelves.access import tokens
from iceshelves.store.database import Database
from iceshelves.store.models import Tenant, User
database = Database(f"sqlite:///{sys.argv[1]}/iceshelves.db")
with database.write() as session:
    session.add(Tenant(id=2, name="other"))
    session.flush()
    for number, name in ((1, "tester"), (2, "stranger")):
        user = User(id=900_000 + number, tenant_id=number, name=name, role="admin")
        session.add(user)
        session.flush()
        print(tokens.issue(session, user, "test").reveal())
"""


@dataclass(frozen=True)
class Running:
    url: str
    token: str
    stranger: str

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        request = Request(
            f"{self.url}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
        )
        with urlopen(request, timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
            return found


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    data, token_file = tmp_path / "data", tmp_path / "token"
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, str(data), str(token_file)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            assert process.stdout is not None
            ready = process.stdout.readline()
            assert " ready at " in ready, (tmp_path / "server.log").read_text()
            tester, stranger = subprocess.run(
                [sys.executable, "-c", _IDENTITIES, str(data)], capture_output=True, text=True, check=True
            ).stdout.split()
            server = Running(ready.split()[-1], tester, stranger)
            server.ask(
                "POST",
                "/api/clusters",
                {"name": "lab", "description": CANARY, "provider": "fake", "endpoint_url": "fake://openapi"},
            )
            server.ask(
                "POST",
                "/api/deploy",
                {
                    "egg": "hello-web",
                    "cluster": "lab",
                    "instance_name": CANARY,
                    "parameters": {"greeting": CANARY},
                },
            )
            yield server
        finally:
            process.terminate()
            process.wait(10)
            shown = (tmp_path / "server.log").read_text()
            assert "unhandled error" not in shown, textwrap.shorten(shown, 4000)


def schemathesis(running: Running, token: str, folder: Path, *options: str) -> str:
    """Run every check; what was sent and answered goes to ``folder/report.ndjson``."""
    (folder / "schemathesis.toml").write_text(_CONFIGURATION)
    done = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"), "run", f"{running.url}/api/openapi.json",
            "--url", running.url.removesuffix("/iceshelves"),
            "--header", f"Authorization: Bearer {token}",
            "--checks", "all",
            "--exclude-path-regex", "/deployments/.*/events$",  # it ends never; a test of its own watches it
            "--max-time", str(BUDGET),
            "--request-timeout", "10",
            "--continue-on-failure",
            "--warnings", "off",
            "--generation-database", "none",
            "--report", "ndjson",
            "--report-ndjson-path", str(folder / "report.ndjson"),
            "--no-color",
            *options,
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=BUDGET * 3,
        env={**os.environ, "PYTHONUTF8": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_the_description_is_true(running: Running, tmp_path: Path) -> None:
    told = schemathesis(running, running.token, tmp_path, "--phases", "examples,coverage,fuzzing")
    assert "Tested: " in told
    assert running.ask("GET", "/api/deployments?deleted=true")["total"] >= 1


@pytest.mark.slow
def test_another_tenant_sees_and_changes_nothing(running: Running, tmp_path: Path) -> None:
    shown = ("/api/clusters/lab", "/api/eggs?versions=all&per_page=100", "/api/users", "/api/deployments")
    before = [running.ask("GET", path) for path in shown]
    schemathesis(running, running.stranger, tmp_path, "--phases", "coverage,fuzzing,stateful")
    assert [running.ask("GET", path) for path in shown] == before
    assert CANARY not in (tmp_path / "report.ndjson").read_text()
