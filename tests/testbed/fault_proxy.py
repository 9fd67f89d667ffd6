"""A bad line: a proxy over TCP or a unix socket that delays, cuts, swallows and garbles what passes.

What it does is one :class:`Fault`, which may be changed at any time.  Bytes are counted in each direction of
each connection since then, so that a fault can be put at an exact byte.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

Place = tuple[str, int] | Path
Way = Literal["up", "down", "both"]
T = TypeVar("T")


class Wire:
    """One connection.  The target is called only for the first byte that gets so far.

    Incus and LXD take no other connection to their socket until one that they have taken says something
    (seen on 6.0.4 and 5.0.2), so a silent one would disturb more than what is on this wire.
    """

    def __init__(self, client: asyncio.StreamWriter, call: Callable[[Wire], Awaitable[asyncio.StreamWriter]]):
        self._client = client
        self._call = call
        self._target: asyncio.StreamWriter | None = None
        self.lines: set[Line] = set()

    async def towards(self, way: Way) -> asyncio.StreamWriter:
        """What takes the bytes that go ``way``."""
        if way == "down":
            return self._client
        if self._target is None:
            self._target = await self._call(self)
        return self._target

    def ends(self) -> list[asyncio.StreamWriter]:
        """Those that there are so far."""
        return [self._client] if self._target is None else [self._client, self._target]


class Line:
    """One direction of ``wire``, ``up`` being towards the target.  ``passed`` counts bytes."""

    def __init__(self, reader: asyncio.StreamReader, wire: Wire, way: Way) -> None:
        self._reader = reader
        self._wire = wire
        self.way: Way = way
        self.passed = 0
        wire.lines.add(self)

    async def read(self) -> bytes:
        """The next bytes; none at the end."""
        return await self._reader.read(65536)

    async def send(self, data: bytes) -> None:
        """Pass ``data`` on."""
        self.passed += len(data)
        writer = await self._wire.towards(self.way)
        writer.write(data)
        await writer.drain()

    async def end(self) -> None:
        """No more comes in this direction; the other one stays open."""
        with suppress(OSError, RuntimeError):  # it is gone already
            (await self._wire.towards(self.way)).write_eof()

    def left(self) -> None:
        """Nobody reads here any more; with the other direction over as well, all is closed."""
        self._wire.lines.discard(self)
        if not self._wire.lines:
            self.close()

    def close(self) -> None:
        """Close both ends in good order."""
        for writer in self._wire.ends():
            writer.close()

    def reset(self) -> None:
        """Hang up on both ends: over TCP with a reset."""
        for writer in self._wire.ends():
            known = writer.get_extra_info("socket")
            if known is not None and known.fileno() >= 0 and known.family != socket.AF_UNIX:
                known.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


class Fault:
    """Does nothing bad; the others differ in what becomes of data and of an end."""

    async def carry(self, line: Line, data: bytes) -> None:
        """``data`` has come on ``line``."""
        await line.send(data)

    async def end(self, line: Line) -> None:
        """The sender on ``line`` has finished."""
        await line.end()


@dataclass(frozen=True)
class Late(Fault):
    """Each piece takes ``seconds``, give or take ``jitter``."""

    seconds: float
    jitter: float = 0.0

    async def carry(self, line: Line, data: bytes) -> None:
        await asyncio.sleep(max(0.0, self.seconds + random.uniform(-self.jitter, self.jitter)))
        await line.send(data)


@dataclass(frozen=True)
class Sliced(Fault):
    """Each byte is a write of its own, for the first ``size`` of each direction."""

    size: int = 4096

    async def carry(self, line: Line, data: bytes) -> None:
        while data and line.passed < self.size:
            await line.send(data[:1])
            data = data[1:]
            await asyncio.sleep(0)
        if data:
            await line.send(data)


@dataclass(frozen=True)
class SlowClose(Fault):
    """That a sender has finished is told only ``seconds`` later."""

    seconds: float

    async def end(self, line: Line) -> None:
        await asyncio.sleep(self.seconds)
        await line.end()


@dataclass(frozen=True)
class _At(Fault, ABC):
    """Something happens once ``after`` bytes have passed in the direction ``way``, between two bytes."""

    after: int = 0
    way: Way = "both"

    async def carry(self, line: Line, data: bytes) -> None:
        if not self.concerns(line):
            await line.send(data)
            return
        room = max(0, self.after - line.passed)
        if data[:room]:
            await line.send(data[:room])
        if data[room:]:
            await self.strike(line, data[room:])

    def concerns(self, line: Line) -> bool:
        """Whether ``line`` goes that way."""
        return self.way in (line.way, "both")

    @abstractmethod
    async def strike(self, line: Line, rest: bytes) -> None:
        """``rest`` is what comes after that byte."""


class BlackHole(_At):
    """What follows vanishes; nobody hangs up."""

    async def strike(self, line: Line, rest: bytes) -> None:
        del line, rest

    async def end(self, line: Line) -> None:
        del line


class Reset(_At):
    """The connection is reset."""

    async def strike(self, line: Line, rest: bytes) -> None:
        del rest
        line.reset()


class Cut(_At):
    """Both ends are closed in good order."""

    async def strike(self, line: Line, rest: bytes) -> None:
        del rest
        line.close()


class HalfClose(_At):
    """No more comes in that direction, while the other one goes on."""

    async def strike(self, line: Line, rest: bytes) -> None:
        del rest
        await line.end()


class Garbage(_At):
    """What follows is replaced by noise of the same size."""

    async def strike(self, line: Line, rest: bytes) -> None:
        await line.send(random.Random(line.passed).randbytes(len(rest)))


class Once(Fault):
    """``fault`` on the first connection that gets so far, and none afterwards."""

    def __init__(self, fault: _At) -> None:
        self._fault = fault
        self._struck: Line | None = None

    async def carry(self, line: Line, data: bytes) -> None:
        due = self._fault.concerns(line) and line.passed + len(data) > self._fault.after
        if due and self._struck is None:
            self._struck = line
        fault = self._fault if line is self._struck else Fault()
        await fault.carry(line, data)


class FaultProxy:
    """Stands before ``target``.  ``lines`` are those that are open."""

    def __init__(self, target: Place) -> None:
        self._target = target
        self._fault = Fault()
        self._server: asyncio.Server | None = None
        self._carriers: set[asyncio.Task[None]] = set()
        self.lines: set[Line] = set()
        self.port = 0
        self.path: Path | None = None

    def arm(self, fault: Fault) -> None:
        """From now on ``fault`` happens, on open connections and on new ones."""
        self._fault = fault
        for line in self.lines:
            line.passed = 0

    def heal(self) -> None:
        """Nothing bad happens any more.  Open connections, which may have lost bytes, are cut."""
        self.arm(Fault())
        for line in list(self.lines):
            line.reset()

    async def open(self, path: Path | None = None) -> None:
        """Listen at ``path``, or at a free port of this machine (:attr:`port`)."""
        self.path = path
        if path is not None:
            self._server = await asyncio.start_unix_server(self._serve, path)
        else:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            self.port = self._server.sockets[0].getsockname()[1]

    async def shut(self) -> None:
        """Listen no more and cut what is open."""
        if self._server is not None:
            self._server.close()
        self.heal()
        for carrier in list(self._carriers):
            carrier.cancel()
        await asyncio.gather(*self._carriers, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._begin(Line(reader, Wire(writer, self._call), "up"))

    async def _call(self, wire: Wire) -> asyncio.StreamWriter:
        if isinstance(self._target, Path):
            reader, writer = await asyncio.open_unix_connection(self._target)
        else:
            reader, writer = await asyncio.open_connection(*self._target)
        self._begin(Line(reader, wire, "down"))
        return writer

    def _begin(self, line: Line) -> None:
        self.lines.add(line)
        carrier = asyncio.create_task(self._carry(line))
        self._carriers.add(carrier)
        carrier.add_done_callback(self._carriers.discard)

    async def _carry(self, line: Line) -> None:
        try:
            while data := await line.read():
                await self._fault.carry(line, data)
            await self._fault.end(line)
        except OSError:
            line.reset()
        finally:
            self.lines.discard(line)
            line.left()


@asynccontextmanager
async def fault_proxy(target: Place, path: Path | None = None) -> AsyncIterator[FaultProxy]:
    """A proxy before ``target`` for as long as the block lasts, at ``path`` or at a port."""
    proxy = FaultProxy(target)
    await proxy.open(path)
    try:
        yield proxy
    finally:
        await proxy.shut()


class ThreadedProxy:
    """The same before a server that this process's own threads or other processes talk to."""

    def __init__(self, target: Place) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._stack = AsyncExitStack()
        self._proxy: FaultProxy | None = None

    def __enter__(self) -> ThreadedProxy:
        self._thread.start()
        self._proxy = self._do(self._stack.enter_async_context(fault_proxy(self._target, None)))
        return self

    def __exit__(self, *_exc: object) -> None:
        self._do(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def port(self) -> int:
        """Where it listens, on loopback."""
        return self._inner.port

    def arm(self, fault: Fault) -> None:
        """From now on, the line is bad."""
        self._loop.call_soon_threadsafe(self._inner.arm, fault)

    def heal(self) -> None:
        """Nothing bad happens any more; lines that may have lost bytes are cut."""
        self._loop.call_soon_threadsafe(self._inner.heal)

    @property
    def _inner(self) -> FaultProxy:
        assert self._proxy is not None
        return self._proxy

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)
