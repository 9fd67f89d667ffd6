"""When the pings of a hypervisor's streams are answered: never before what it has sent already is read."""

from __future__ import annotations

from typing import Any, cast

import aiohttp
import pytest
from aiohttp import WSMessage, WSMsgType

from iceshelves.providers.incus import client
from iceshelves.providers.incus.client import Incoming

pytestmark = pytest.mark.anyio

PING = WSMessage(WSMsgType.PING, b"keepalive", None)
CLOSED = WSMessage(WSMsgType.CLOSED, None, None)


class Peer:
    """Plays ``script``: messages, and ``None`` for silence."""

    def __init__(self, *script: WSMessage | None) -> None:
        self.script = list(script)
        self.said: list[object] = []

    async def receive(self, timeout: float | None = None) -> WSMessage:
        message = self.script.pop(0)
        if message is not None:
            return message
        assert timeout is not None, "nothing would end this silence"
        raise TimeoutError

    async def pong(self, data: bytes) -> None:
        self.said.append(data)

    async def all(self) -> list[object]:
        """What is read, with the pongs where they are sent."""
        incoming = Incoming(cast("aiohttp.ClientWebSocketResponse", cast("Any", self)))
        while (data := await incoming.next()) is not None:
            self.said.append(data)
        return self.said


def data(value: bytes) -> WSMessage:
    return WSMessage(WSMsgType.BINARY, value, None)


async def test_a_program_that_has_ended_already_is_read_to_its_end() -> None:
    assert await Peer(PING, data(b"1"), data(b"2"), CLOSED).all() == [b"1", b"2"]


async def test_a_quiet_stream_answers_once() -> None:
    assert await Peer(data(b"1"), PING, None, data(b"2"), CLOSED).all() == [b"1", b"keepalive", b"2"]


async def test_a_busy_stream_answers_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_OVERDUE", -1.0)
    assert await Peer(PING, data(b"1"), data(b"2"), CLOSED).all() == [b"keepalive", b"1", b"2"]


async def test_a_peer_that_has_gone_is_no_error() -> None:
    peer = Peer(PING, None, CLOSED)

    async def broken(_data: bytes) -> None:
        raise ConnectionResetError

    peer.pong = broken  # type: ignore[method-assign]
    assert await peer.all() == []
