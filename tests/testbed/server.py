"""A real IceShelves server in a process of its own, which tests may kill, and a small client for its API."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testbed.hosts import die_with_parent, wait_until


@dataclass
class Answer:
    """What the API answered."""

    status: int
    body: dict[str, Any]


@dataclass
class Server:
    """``iceshelves serve`` on a free port of loopback, on ``data``; started again on the same data."""

    data: Path
    environment: dict[str, str] = field(default_factory=dict)
    address: str = ""
    process: subprocess.Popen[str] | None = None

    def start(self, listen: str = "127.0.0.1:0") -> Server:
        """Start it and wait for its ready line."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "iceshelves", "serve", "--data", str(self.data), "--listen", listen,
             "--admin-token-file", str(self.token_file)],
            env={**os.environ, **self.environment},
            stdout=subprocess.PIPE,
            stderr=(self.data.parent / "server.log").open("a"),
            text=True,
            preexec_fn=die_with_parent,
        )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert " ready at http://" in line, (
            f"{line!r}: {(self.data.parent / 'server.log').read_text()[-3000:]}"
        )
        self.address = line.split("://")[1].split("/")[0].strip()
        return self

    def kill(self) -> None:
        """SIGKILL: nothing is written, nothing said."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM, and its exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(10)

    @property
    def token_file(self) -> Path:
        """Where the first start leaves the administrator's token."""
        return self.data.parent / "admin.token"

    @property
    def token(self) -> str:
        """The administrator's token."""
        return self.token_file.read_text().strip()

    def call(self, method: str, path: str, body: object = None, token: str | None = None) -> Answer:
        """One request below ``/iceshelves/api``, whatever its status."""
        connection = http.client.HTTPConnection(self.address, timeout=30)
        headers = {"Authorization": f"Bearer {token or self.token}", "Content-Type": "application/json"}
        connection.request(
            method, f"/iceshelves/api{path}", None if body is None else json.dumps(body), headers
        )
        response = connection.getresponse()
        answer = Answer(response.status, json.loads(response.read()))
        connection.close()
        return answer

    def get(self, path: str) -> dict[str, Any]:
        """The body of a GET that must succeed."""
        answer = self.call("GET", path)
        assert answer.status == 200, answer
        return answer.body

    def post(self, path: str, **body: object) -> dict[str, Any]:
        """The body of a POST that must be accepted."""
        answer = self.call("POST", path, body)
        assert answer.status in (200, 201, 202), answer
        return answer.body

    def import_egg(self, archive: bytes) -> dict[str, Any]:
        """Import an egg's archive; returns the answer's body."""
        connection = http.client.HTTPConnection(self.address, timeout=30)
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/octet-stream"}
        connection.request("POST", "/iceshelves/api/eggs/import", archive, headers)
        response = connection.getresponse()
        body: dict[str, Any] = json.loads(response.read())
        assert response.status in (200, 201), body
        return body

    def wait(self, operation_id: str, seconds: float = 90) -> dict[str, Any]:
        """The operation once it has ended."""
        operation: dict[str, Any] = {}

        def ended() -> bool:
            nonlocal operation
            operation = self.get(f"/operations/{operation_id}")
            return operation["finished_at"] is not None

        wait_until(ended, f"the end of operation {operation_id}: {operation}", seconds)
        return operation

    def wait_for_step(self, operation_id: str, step: str, seconds: float = 60) -> None:
        """Wait until ``step`` runs."""

        def reached() -> bool:
            found = self.get(f"/operations/{operation_id}")
            states = {entry["name"]: entry["status"] for entry in found["steps"]}
            assert found["finished_at"] is None, f"{step} was never seen running: {found}"
            return bool(states[step] == "running")

        wait_until(reached, f"step {step}", seconds)

    def logs(self, deployment_id: int) -> list[str]:
        """The messages of a deployment's log, guest's and ours."""
        found = self.get(f"/deployments/{deployment_id}/logs?per_page=100")
        return [line["message"] for line in found["logs"]]

    def memory(self) -> int:
        """Resident bytes of the server's process."""
        assert self.process is not None
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def running_server(folder: Path, **environment: str) -> Iterator[Server]:
    """A server with new data below ``folder``."""
    server = Server(folder / "data", environment).start()
    try:
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.kill()
