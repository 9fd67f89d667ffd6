"""A program in a guest: one websocket for each standard stream and one for control.

The daemon starts the program once all of them are connected, and kills it when the control socket goes
away (doc/rest-api.md, "websocket" operations; measured on Incus 6.0.4): a killed server leaves none behind.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import aiohttp

from iceshelves.core.errors import Conflict, IceShelvesError, Temporary
from iceshelves.providers.base import ExecRequest, OutputStream
from iceshelves.providers.incus import errors
from iceshelves.providers.incus.client import Call, Client, Incoming, path
from iceshelves.providers.incus.operations import Begun, Operation, Operations

_log = logging.getLogger(__name__)

_CONTROL: Final = "control"
#: chunks held for a slow reader before the guest's program is made to wait
_BACKLOG: Final = 64
#: seconds of silence, once the program has ended, that are taken for the end of its output
_LINGER: Final = 1.0
#: seconds that a killed program's end is waited for
_KILL_DEADLINE: Final = 5.0

_Sockets = Mapping[str, aiohttp.ClientWebSocketResponse]
_Chunk = tuple[OutputStream, bytes]


async def open_exec(client: Client, operations: Operations, name: str, request: ExecRequest) -> IncusExec:
    """Start ``request`` in the instance ``name``.

    Raises :class:`Conflict` ``instance_not_running`` where nothing can be run.
    """
    call = Call("POST", path("instances", name, "exec"), _body(request))
    try:
        begun = await operations.begin(call)
    except IceShelvesError as error:
        if "not running" in error.message.lower():
            raise Conflict(f"The instance {name!r} is not running.", code="instance_not_running") from error
        raise
    secrets = begun.operation.metadata.get("fds")
    if not isinstance(secrets, dict) or _CONTROL not in secrets:
        raise errors.bad_answer(client.where, "an exec without sockets")
    return IncusExec(operations, begun, await _connect(client, begun.operation.id, secrets))


async def _connect(client: Client, operation: str, secrets: Mapping[str, str]) -> _Sockets:
    """Connect control and output first and ``0``, standard input, last.

    The daemon starts the program once it has all streams.  Were output connected last, a program that ends
    at once could close it before it is listened to, and aiohttp would never tell that end.
    """
    where = path("operations", operation, "websocket")
    sockets: dict[str, aiohttp.ClientWebSocketResponse] = {}
    try:
        for fd in sorted(secrets, reverse=True):
            sockets[fd] = await client.websocket(where, secret=str(secrets[fd]))
    except BaseException:
        await _close(sockets)
        raise
    return sockets


def _body(request: ExecRequest) -> dict[str, Any]:
    body: dict[str, Any] = {
        "command": list(request.command),
        "environment": dict(request.environment),
        "user": request.user,
        "group": request.group,
        "wait-for-websocket": True,
        "interactive": request.terminal is not None,
    }
    if request.cwd is not None:
        body["cwd"] = request.cwd
    if request.terminal is not None:
        body["width"], body["height"] = request.terminal
    return body


class IncusExec:
    """A running program; see :class:`~iceshelves.providers.base.ExecSession`."""

    def __init__(self, operations: Operations, begun: Begun, sockets: _Sockets) -> None:
        self._sockets = sockets
        self._queue: asyncio.Queue[_Chunk | None] = asyncio.Queue(_BACKLOG)
        # With a terminal there is one socket for both directions, "0"; otherwise "1" and "2" are output.
        streams: dict[str, OutputStream] = (
            {"1": "stdout", "2": "stderr"} if "1" in sockets else {"0": "stdout"}
        )
        self._end = asyncio.create_task(operations.await_end(begun))
        self._end.add_done_callback(_retrieve)
        self._pumps = [asyncio.create_task(self._pump(sockets[fd], stream)) for fd, stream in streams.items()]
        self._drains = [asyncio.create_task(_drain(sockets[fd])) for fd in sockets if fd not in streams]

    async def __aenter__(self) -> IncusExec:
        return self

    async def __aexit__(self, *exc: object) -> None:
        try:
            if not self._end.done():
                await self._kill()
        finally:
            for task in (*self._pumps, *self._drains, self._end):
                task.cancel()
            await _close(self._sockets)

    async def output(self) -> AsyncIterator[_Chunk]:
        open_streams = len(self._pumps)
        while open_streams:
            chunk = await self._queue.get()
            if chunk is None:
                open_streams -= 1
            else:
                yield chunk

    async def write(self, data: bytes) -> None:
        socket = self._sockets["0"]
        try:
            # An empty text frame is the end of standard input.
            await (socket.send_bytes(data) if data else socket.send_str(""))
        except (ConnectionError, aiohttp.ClientError) as error:
            raise Conflict("The program no longer reads its input.", code="input_closed") from error

    async def resize(self, columns: int, rows: int) -> None:
        await self._control(
            {"command": "window-resize", "args": {"width": str(columns), "height": str(rows)}}
        )

    async def signal(self, number: int) -> None:
        await self._control({"command": "signal", "signal": number})

    async def wait(self) -> int:
        return _status(await asyncio.shield(self._end))

    async def _control(self, message: dict[str, Any]) -> None:
        try:
            await self._sockets[_CONTROL].send_str(json.dumps(message))
        except (ConnectionError, aiohttp.ClientError) as error:
            _log.debug("the program has ended, %s is not sent: %s", message["command"], error)

    async def _kill(self) -> None:
        await self.signal(9)
        await asyncio.wait([self._end], timeout=0.2)
        if not self._end.done():
            # Its children may hold the streams open; the daemon ends them with the sockets.
            await _close(self._sockets)
            await asyncio.wait([self._end], timeout=_KILL_DEADLINE)

    async def _pump(self, socket: aiohttp.ClientWebSocketResponse, stream: OutputStream) -> None:
        # An empty text frame, or the end of the socket, is the end of the stream.
        incoming = Incoming(socket)
        while data := await self._receive(incoming):
            await self._queue.put((stream, data.encode() if isinstance(data, str) else data))
        if socket is self._sockets["0"]:
            # The daemon ends a program on a terminal only once we have left it too.
            await socket.close()
        await self._queue.put(None)

    async def _receive(self, incoming: Incoming) -> str | bytes | None:
        """The next data; ``None`` at the end, which may be just silence after the program's end."""
        receiving = asyncio.create_task(incoming.next())
        try:
            await asyncio.wait({receiving, self._end}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({receiving}, timeout=_LINGER)
            return receiving.result() if receiving.done() else None
        finally:
            receiving.cancel()


async def _drain(socket: aiohttp.ClientWebSocketResponse) -> None:
    """Read what comes on a socket that we only write to, so that its pings are answered."""
    incoming = Incoming(socket)
    while await incoming.next() is not None:
        continue


def _status(end: Operation) -> int:
    status = end.metadata.get("return")
    if isinstance(status, int):
        # A program that is not there ends as a failed operation with 127, one not executable with 126.
        return status
    words = end.words or "the program ended without a status"
    if "retrieve PID" in words:  # seen on Incus 6.0.4 under load, right after a start: the next try works
        raise Temporary(f"The guest did not run the program: {words}", code="guest_not_ready", delay=0.5)
    raise errors.failure(words)


def _retrieve(end: asyncio.Task[Operation]) -> None:
    if not end.cancelled():
        end.exception()


async def _close(sockets: _Sockets) -> None:
    await asyncio.gather(*(socket.close() for socket in sockets.values()), return_exceptions=True)
