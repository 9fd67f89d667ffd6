"""A server made of a table of answers, spoken to without a socket, and a way to run commands against it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from iceshelves.cli.app import App
from iceshelves.cli.client import Client
from iceshelves.cli.main import run as run_program
from iceshelves.cli.servers import Server
from iceshelves.core.secret import Secret

URL = "http://server.test:8000/iceshelves"
TOKEN = "isv_a-token-of-a-test"


@dataclass
class Sent:
    """One request as it arrived."""

    method: str
    path: str
    query: str
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Reply:
    """One answer; an exception among ``lines`` of a stream is raised when it is reached."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    lines: list[Any] = field(default_factory=list)


class FakeResponse:
    def __init__(self, reply: Reply) -> None:
        self.status = reply.status
        self._headers = reply.headers
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        self._body = io.BytesIO(b"" if reply.body is None else body)
        self._lines = iter(reply.lines)

    def read(self, amount: int | None = None) -> bytes:
        return self._body.read(-1 if amount is None else amount)

    def readline(self, limit: int = -1) -> bytes:
        line = next(self._lines, b"")
        if isinstance(line, BaseException):
            raise line
        return line

    def getheader(self, name: str, default: str | None = None) -> str | None:
        return self._headers.get(name, default)


class FakeServer:
    """Answers are taken in the order given; the last one of a path repeats."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.connections = 0
        self._answers: dict[tuple[str, str], list[Reply | BaseException]] = {}

    def on(self, method: str, path: str, *answers: Any, status: int = 200) -> None:
        made = [each if isinstance(each, Reply | BaseException) else Reply(status, each) for each in answers]
        self._answers[method, f"/iceshelves{path}"] = made

    def stream(self, path: str, *streams: list[Any]) -> None:
        self.on("GET", path, *(Reply(lines=lines) for lines in streams))

    def answer(self, sent: Sent) -> FakeResponse:
        self.sent.append(sent)
        answers = self._answers.get((sent.method, sent.path))
        if not answers:
            return FakeResponse(
                Reply(404, {"error": f"no {sent.method} {sent.path}", "error_code": "not_found"})
            )
        reply = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(reply, BaseException):
            raise reply
        return FakeResponse(reply)

    def to(self, method: str, path: str) -> list[Sent]:
        return [sent for sent in self.sent if (sent.method, sent.path) == (method, f"/iceshelves{path}")]

    def dial(self, _deadline: float) -> Any:
        self.connections += 1
        return FakeConnection(self)


class FakeConnection:
    def __init__(self, server: FakeServer) -> None:
        self._server = server
        self._sent: Sent | None = None

    def request(self, method: str, url: str, body: bytes | None, headers: dict[str, str]) -> None:
        path, _, query = url.partition("?")
        self._sent = Sent(method, path, query, body or b"", dict(headers))

    def getresponse(self) -> FakeResponse:
        if self._sent is None:
            raise RuntimeError("an answer was awaited before a request was sent")
        return self._server.answer(self._sent)

    def close(self) -> None:
        self._sent = None


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def client(server: FakeServer) -> Client:
    return Client(Server(URL, Secret(TOKEN)), server.dial)


@pytest.fixture(autouse=True)
def home(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("ICESHELVES_SERVER", URL)
    monkeypatch.setenv("ICESHELVES_TOKEN", TOKEN)
    monkeypatch.setattr("time.sleep", lambda _: None)


@pytest.fixture
def run(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    def call(*arguments: str) -> Result:
        capsys.readouterr()
        code = run_program(arguments, App(lambda chosen: Client(chosen, server.dial)))
        said = capsys.readouterr()
        return Result(code, said.out, said.err)

    return call


def event(name: str, data: Any, identity: str | None = None) -> list[bytes]:
    """The lines of one server-sent event."""
    lines = [f"id: {identity}"] if identity else []
    lines += [f"event: {name}", f"data: {json.dumps(data)}", ""]
    return [f"{line}\n".encode() for line in lines]


@pytest.fixture
def events() -> Callable[..., list[bytes]]:
    return event


def page(name: str, *entries: Any, page: int = 1, pages: int = 1) -> dict[str, Any]:
    """One page of a list, in the API's envelope."""
    return {
        "success": True,
        name: list(entries),
        "data": list(entries),
        "page": page,
        "per_page": 100,
        "total": len(entries),
        "total_pages": pages,
    }


@pytest.fixture
def listed() -> Callable[..., dict[str, Any]]:
    return page


@pytest.fixture
def reply() -> type[Reply]:
    return Reply


DEPLOYMENT: dict[str, Any] = {
    "id": 7,
    "egg_id": 3,
    "egg": {"id": 3, "name": "hello-web", "version": "1.2.0"},
    "cluster_id": 1,
    "cluster": {"id": 1, "name": "local"},
    "instance_name": "web",
    "status": "completed",
    "deployment_type": "lxd",
    "revision": 2,
    "created_on": "2026-01-31T12:00:00.000Z",
    "deployed_by": "admin",
    "instance_info": {"ipv4": ["10.77.1.23"], "ipv6": [], "image": "debian/13", "member": None},
    "error": None,
    "operation": None,
}


@pytest.fixture
def deployment() -> dict[str, Any]:
    return dict(DEPLOYMENT)


@pytest.fixture
def one_deployment(server: FakeServer) -> FakeServer:
    """A server with the deployment local:web, number 7."""
    server.on("GET", "/api/clusters", page("clusters", {"id": 1, "name": "local"}))
    server.on("GET", "/api/clusters/local", {"success": True, "id": 1, "name": "local"})
    server.on("GET", "/api/deployments", page("deployments", DEPLOYMENT))
    server.on("GET", "/api/deployments/7", {"success": True, "data": DEPLOYMENT, **DEPLOYMENT})
    return server


def operation(status: str = "succeeded", **more: Any) -> dict[str, Any]:
    """An operation with two steps."""
    done = {"status": "done", "started_at": "2026-01-31T12:00:00Z", "finished_at": "2026-01-31T12:00:01Z"}
    return {
        "id": "op-1",
        "kind": "deploy",
        "status": status,
        "deployment_id": 7,
        "instance_name": "web",
        "error": None,
        "steps": [{"name": "validate", **done}, {"name": "ensure_image", **done}],
        **more,
    }


@pytest.fixture
def an_operation() -> Callable[..., dict[str, Any]]:
    return operation
