"""The whole OpenAPI description against a real server: what it says is true, whatever is sent to it.

Schemathesis makes the requests.  It runs twice: as an administrator who may do everything, and as the
administrator of another tenant, who must neither see nor change anything of the first.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

CANARY = "canary-5e1f0c"
#: seconds each run may take
BUDGET = 30
_SERVE = """
import sys
from pathlib import Path
from iceshelves.core.settings import Settings
from iceshelves.server.serve import Listening, serve
serve(Settings(data=Path(sys.argv[1])), Listening("127.0.0.1", 0), Path(sys.argv[2]))
"""
# no schema can say which bytes are a packed egg, which templates there are, where a cluster can be and what
# is shown there, or that one name of several is to be given
_CONFIGURATION = "".join(
    f"""
[[operations]]
include-path = "/iceshelves{path}"
include-method = "{method}"
checks.positive_data_acceptance.enabled = false
"""
    for method, path in (
        ("POST", "/api/eggs/import"),
        ("POST", "/api/eggs"),
        ("POST", "/api/clusters"),
        ("POST", "/api/clusters/look"),
        ("PATCH", "/api/clusters/{cluster}"),
        ("POST", "/api/clusters/{cluster}/look"),
        ("POST", "/api/clusters/{cluster}/rotate"),
        ("POST", "/api/clusters/{cluster}/accept-certificate"),
        ("POST", "/api/clusters/{cluster}/accept-host-key"),
        ("POST", "/api/deploy"),
        ("POST", "/deploy"),
    )
)
# what asks a hypervisor says so if none is there: that is no fault of the server
_CONFIGURATION += "".join(
    f"""
[[operations]]
include-path = "/iceshelves/api/clusters/{{cluster}}/{path}"
checks.not_a_server_error.expected-statuses = ["2xx", "4xx", 503]
"""
    for path in (
        "members",
        "members/{member}/evacuate",
        "members/{member}/restore",
        "scan",
        "adopt",
        "release",
    )
)
# administrators of the first tenant and of another
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
        user = User(tenant_id=number, name=name, role="admin")
        session.add(user)
        session.flush()
        print(tokens.issue(session, user, "test").reveal())
"""


@dataclass(frozen=True)
class Exchange:
    """An answer, and which operation gave it."""

    label: str
    status: int
    body: str


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
            wait_until_ready(server)
            yield server
        finally:
            process.terminate()
            process.wait(10)
            shown = (tmp_path / "server.log").read_text()
            assert "unhandled error" not in shown, textwrap.shorten(shown, 4000)


def wait_until_ready(server: Running) -> None:
    until = time.monotonic() + 20
    while server.ask("GET", "/api/deployments/1")["status"] != "completed":
        assert time.monotonic() < until
        time.sleep(0.05)


def schemathesis(running: Running, token: str, folder: Path, *options: str) -> list[Exchange]:
    """Run every check (which is the default), and return what was sent and answered."""
    (folder / "schemathesis.toml").write_text(_CONFIGURATION)
    (folder / "openapi.json").write_text(json.dumps(_without_keys(running.ask("GET", "/api/openapi.json"))))
    done = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"), "run", folder / "openapi.json",
            "--url", running.url.removesuffix("/iceshelves"),
            "--header", f"Authorization: Bearer {token}",
            "--max-time", str(BUDGET),
            "--request-timeout", "10",
            "--continue-on-failure",
            "--warnings", "off",
            "--generation-database", "none",
            "--seed", os.environ.get("ICESHELVES_TEST_SEED", "1"),  # another one looks elsewhere
            "--report", "ndjson",
            "--report-ndjson-path", str(folder / "report.ndjson"),
            "--no-color",
            *options,
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=BUDGET * 3,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    with (folder / "report.ndjson").open() as report:
        return [exchange for line in report for exchange in _exchanges(json.loads(line), "")]


def _without_keys(description: dict[str, Any]) -> dict[str, Any]:
    """The same few idempotency keys would come with ever other requests, and be refused for that alone."""
    for operations in description["paths"].values():
        for operation in operations.values():
            parameters = operation.get("parameters", [])
            operation["parameters"] = [p for p in parameters if p["name"] != "Idempotency-Key"]
    return description


def _exchanges(found: Any, label: str) -> Iterator[Exchange]:
    """Every answer in a part of the report, however deep it lies."""
    if isinstance(found, list):
        for entry in found:
            yield from _exchanges(entry, label)
    elif isinstance(found, dict):
        label = found.get("label") or label
        answer = found.get("response")
        if isinstance(answer, dict) and "status_code" in answer:
            content = (answer.get("content") or {}).get("$base64", "")
            yield Exchange(label, answer["status_code"], base64.b64decode(content).decode(errors="replace"))
        for entry in found.values():
            yield from _exchanges(entry, label)


# a stream of a deployment ends never, and a run must not end its own token
WITHOUT = ("--exclude-path-regex", "/deployments/.*/events$|/users/.*")


@pytest.mark.slow
def test_the_description_is_true(running: Running, tmp_path: Path) -> None:
    exchanges = schemathesis(
        running, running.token, tmp_path, *WITHOUT, "--phases", "examples,coverage,fuzzing"
    )
    assert running.ask("GET", "/api/whoami")["role"] == "admin"  # else little was tested
    done = {exchange.label for exchange in exchanges if exchange.status < 300}
    for label in (
        "POST /iceshelves/api/deploy",
        "POST /iceshelves/api/clusters",
        "POST /iceshelves/api/clusters/{cluster}/test",
        "GET /iceshelves/api/deployments/{deployment}",
        "GET /iceshelves/api/operations/{operation}",
        "POST /iceshelves/api/eggs/{egg}/render",
    ):
        assert label in done, sorted(done)


@pytest.mark.slow
def test_the_description_of_users_is_true(running: Running, tmp_path: Path) -> None:
    only = ("--include-path-regex", "/users/.*", "--phases", "coverage")
    exchanges = schemathesis(running, running.token, tmp_path, *only)
    assert {404, 409} & {exchange.status for exchange in exchanges}


@pytest.mark.slow
def test_another_tenant_sees_and_changes_nothing(running: Running, tmp_path: Path) -> None:
    shown = ("/api/clusters/lab", "/api/eggs?versions=all&per_page=100", "/api/users", "/api/deployments")
    before = [_lasting(running.ask("GET", path)) for path in shown]
    phases = ("--phases", "coverage,fuzzing,stateful")
    exchanges = schemathesis(running, running.stranger, tmp_path, *WITHOUT, *phases)
    assert any(exchange.status == 200 for exchange in exchanges)
    assert [_lasting(running.ask("GET", path)) for path in shown] == before
    for exchange in exchanges:
        assert CANARY not in exchange.body, exchange


def _lasting(shown: dict[str, Any]) -> dict[str, Any]:
    """What is ``shown`` of a cluster, without how it is right now, which the server looks after itself."""
    now = ("data", "health", "status", "last_check", "metadata", "is_cluster")
    return {name: value for name, value in shown.items() if name not in now}
