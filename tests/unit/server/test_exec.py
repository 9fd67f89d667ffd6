"""A program in an instance, over a websocket; the guest is played by a few lines."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from iceshelves.core.errors import Conflict, Failed
from iceshelves.providers.base import ExecRequest, OutputStream


class Echo:
    """Repeats its input until that ends; ``closed`` once the session is left."""

    def __init__(self, request: ExecRequest) -> None:
        self.request = request
        self.said: asyncio.Queue[bytes] = asyncio.Queue()
        self.sizes: list[tuple[int, int]] = []
        self.signals: list[int] = []
        self.closed = False

    async def __aenter__(self) -> Echo:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.closed = True

    async def output(self) -> AsyncIterator[tuple[OutputStream, bytes]]:
        yield "stderr", b"ready"
        while data := await self.said.get():
            yield "stdout", data

    async def write(self, data: bytes) -> None:
        if self.request.command[0] == "head":
            raise Conflict("The program no longer reads its input.", code="input_closed")
        self.said.put_nowait(data)

    async def resize(self, columns: int, rows: int) -> None:
        self.sizes.append((columns, rows))

    async def signal(self, number: int) -> None:
        self.signals.append(number)
        self.said.put_nowait(b"")

    async def wait(self) -> int:
        return 128 + self.signals[0] if self.signals else 3


class EchoGuest:
    def __init__(self) -> None:
        self.sessions: list[Echo] = []

    async def exec(self, name: str, request: ExecRequest) -> Echo:
        assert name == "web-1"
        if request.command[0] == "missing":
            raise Failed("There is no such program.", code="exec_failed")
        self.sessions.append(Echo(request))
        return self.sessions[-1]


@pytest.fixture
def guest(server: Any, monkeypatch: pytest.MonkeyPatch) -> EchoGuest:
    played = EchoGuest()

    async def open_guest(*_: object) -> tuple[str, EchoGuest]:
        return "web-1", played

    server.deploy()
    monkeypatch.setattr(server.control, "open_guest", open_guest)
    return played


@pytest.fixture
def connect(server: Any) -> Callable[..., Any]:
    def open_socket(**headers: str) -> Any:
        headers = headers or {"Authorization": f"Bearer {server.tokens['operator']}"}
        return server.client.websocket_connect("/iceshelves/api/deployments/1/exec", headers=headers)

    return open_socket


def test_streams_are_carried_both_ways(connect: Any, guest: EchoGuest, server: Any) -> None:
    with connect() as socket:
        socket.send_text(
            json.dumps({"command": ["cat"], "environment": {"A": "b"}, "user": 1000, "cwd": "/"})
        )
        assert socket.receive_bytes() == b"\x02ready"
        socket.send_bytes(b"hello\x00\xff")
        assert socket.receive_bytes() == b"\x01hello\x00\xff"
        socket.send_bytes(b"")
        assert json.loads(socket.receive_text()) == {"exit": 3}
        assert socket.receive()["type"] == "websocket.close"
    request = guest.sessions[0].request
    assert (request.command, request.environment, request.user, request.cwd) == (
        ["cat"],
        {"A": "b"},
        1000,
        "/",
    )
    assert request.terminal is None
    assert guest.sessions[0].closed
    entry = server.get("/api/audit").json()["audit"][0]
    assert (entry["action"], entry["object"], entry["details"]) == (
        "instance.exec",
        "web-1",
        {"program": "cat"},
    )


def test_a_terminal_is_resized_and_signalled(connect: Any, guest: EchoGuest) -> None:
    with connect() as socket:
        socket.send_text(
            json.dumps({"command": ["sh"], "terminal": [80, 24], "environment": None, "user": None})
        )
        socket.receive_bytes()
        socket.send_text(json.dumps({"resize": [120, 40]}))
        socket.send_text(json.dumps({"signal": 2}))
        assert json.loads(socket.receive_text()) == {"exit": 130}
    session = guest.sessions[0]
    assert (session.request.terminal, session.sizes, session.signals) == ((80, 24), [(120, 40)], [2])


def test_a_program_that_does_not_read_its_input_ends_as_it_does(connect: Any, guest: EchoGuest) -> None:
    with connect() as socket:
        socket.send_text(json.dumps({"command": ["head"]}))
        socket.receive_bytes()
        for data in (b"dropped", b"too", b""):
            socket.send_bytes(data)
        socket.send_text(json.dumps({"signal": 13}))
        assert json.loads(socket.receive_text()) == {"exit": 141}


def test_a_client_that_goes_away_ends_its_program(connect: Any, guest: EchoGuest) -> None:
    with connect() as socket:
        socket.send_text(json.dumps({"command": ["cat"]}))
        socket.receive_bytes()
    assert guest.sessions[0].closed


@pytest.mark.parametrize(
    ("first", "code"),
    [
        ("{", "json_syntax"),
        ("{}", "invalid_exec_request"),
        ('{"command": []}', "invalid_exec_request"),
        ('{"command": ["x"], "shell": true}', "invalid_exec_request"),
        ('{"command": ["missing"]}', "exec_failed"),
    ],
)
def test_what_cannot_be_run(connect: Any, guest: EchoGuest, first: str, code: str) -> None:
    with connect() as socket:
        socket.send_text(first)
        assert json.loads(socket.receive_text())["error"]["code"] == code
    assert guest.sessions == []


def test_a_message_that_is_neither(connect: Any, guest: EchoGuest) -> None:
    with connect() as socket:
        socket.send_text(json.dumps({"command": ["cat"]}))
        socket.receive_bytes()
        socket.send_text('{"signal": 999}')
        assert json.loads(socket.receive_text())["error"]["code"] == "invalid_exec_message"
    assert guest.sessions[0].closed


def test_the_token_may_come_as_a_subprotocol(connect: Any, guest: EchoGuest, server: Any) -> None:
    token = server.tokens["operator"]
    with connect(**{"Sec-WebSocket-Protocol": f"iceshelves.exec, bearer.{token}"}) as socket:
        assert socket.accepted_subprotocol == "iceshelves.exec"
        socket.send_text(json.dumps({"command": ["cat"]}))
        socket.receive_bytes()
