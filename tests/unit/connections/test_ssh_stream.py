"""A channel of SSH as a transport: pauses, ends and losses reach the other side, once."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from iceshelves.connections.ssh_stream import Stream

pytestmark = pytest.mark.anyio


class Channel:
    """What is asked of a channel, in order; it hands over ``held`` as soon as reading goes on."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.held: list[bytes] = []
        self.stream: Stream | None = None
        self.closing = False

    def __getattr__(self, name: str) -> Any:
        return lambda *given: self.asked.append(" ".join((name, *map(repr, given))))

    def is_closing(self) -> bool:
        return self.closing

    def resume_reading(self) -> None:
        self.asked.append("resume_reading")
        while self.held and self.stream is not None:
            self.stream.data_received(self.held.pop(0), None)


class Protocol(asyncio.Protocol):
    """What a protocol is told, in order."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.fault: Exception | None = None
        self.losses: list[Exception | None] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.told.append("made")

    def data_received(self, data: bytes) -> None:
        self.told.append(data.decode())
        if self.fault is not None:
            raise self.fault

    def eof_received(self) -> None:
        self.told.append("eof")

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append(f"lost {exc}")
        self.losses.append(exc)

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")


def opened() -> tuple[Stream, Protocol, Channel, list[Stream]]:
    ended: list[Stream] = []
    protocol, channel = Protocol(), Channel()
    stream = Stream(protocol, ended.append)
    channel.stream = stream
    stream.connection_made(cast(Any, channel))
    return stream, protocol, channel, ended


async def test_the_end_of_file_closes_it_once() -> None:
    stream, protocol, channel, ended = opened()
    stream.data_received(b"last words", None)
    stream.eof_received()
    stream.connection_lost(None)
    stream.close()
    await asyncio.sleep(0)
    assert protocol.told == ["made", "last words", "eof", "lost None"]
    assert channel.asked == ["abort"]
    assert ended == [stream]
    assert stream.is_closing()


async def test_a_lost_connection_is_a_loss_that_an_http_client_understands() -> None:
    stream, protocol, _, _ = opened()
    stream.connection_lost(ValueError("Connection lost"))
    await asyncio.sleep(0)
    assert isinstance(protocol.losses[0], ConnectionResetError)
    assert "the SSH connection was lost" in str(protocol.losses[0])


async def test_after_closing_nothing_passes_in_either_direction() -> None:
    stream, protocol, channel, _ = opened()
    stream.close()
    stream.write(b"too late")
    stream.data_received(b"too late", None)
    stream.pause_writing()
    stream.resume_writing()
    stream.eof_received()
    await asyncio.sleep(0)
    assert protocol.told == ["made", "lost None"]
    assert channel.asked == ["abort"]


async def test_closing_does_not_call_back_at_once() -> None:
    stream, protocol, _, _ = opened()
    stream.close()
    assert protocol.told == ["made"]


async def test_a_full_window_pauses_the_writer() -> None:
    stream, protocol, _, _ = opened()
    stream.pause_writing()
    stream.resume_writing()
    assert protocol.told == ["made", "pause", "resume"]


async def test_a_paused_reader_gets_the_rest_later_and_not_within_its_own_call() -> None:
    stream, protocol, channel, _ = opened()
    stream.pause_reading()
    channel.held = [b"one", b"two"]
    stream.resume_reading()
    assert protocol.told == ["made"]
    await asyncio.sleep(0)
    assert protocol.told == ["made", "one", "two"]


async def test_a_reader_that_pauses_again_meanwhile_stays_paused() -> None:
    stream, _, channel, _ = opened()
    stream.pause_reading()
    stream.resume_reading()
    stream.pause_reading()
    await asyncio.sleep(0)
    assert "resume_reading" not in channel.asked
    assert not stream.is_reading()


async def test_a_fault_of_the_protocol_ends_this_stream_alone() -> None:
    stream, protocol, channel, _ = opened()
    protocol.fault = ValueError("not HTTP")
    stream.data_received(b"x", None)  # raised from here, it would end the SSH connection
    await asyncio.sleep(0)
    assert protocol.told[-1] == "lost not HTTP"
    assert channel.asked == ["abort"]


async def test_a_channel_that_comes_too_late_is_closed() -> None:
    protocol, channel = Protocol(), Channel()
    stream = Stream(protocol, lambda _: None)
    stream.abort()
    stream.connection_made(cast(Any, channel))
    await asyncio.sleep(0)
    assert channel.asked == ["abort"]
    assert protocol.told == []


async def test_what_the_other_side_no_longer_reads_is_not_written() -> None:
    stream, _, channel, _ = opened()
    stream.write(memoryview(b"heard"))
    channel.closing = True
    stream.write(b"unheard")
    assert channel.asked == ["write b'heard'"]
