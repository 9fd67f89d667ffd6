"""The daemon's event stream: one websocket per provider, opened at its first use and kept open.

Whoever listens is told each event and, after the stream was cut, that there was a gap: what happened in it
must be looked up.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from typing import Any, Final, Protocol

import aiohttp

from iceshelves.core.errors import IceShelvesError, Temporary
from iceshelves.providers.incus import errors
from iceshelves.providers.incus.client import Client, Incoming, path

#: seconds between attempts to reconnect grow from the first to the second, with jitter
_BACKOFF: Final = (0.05, 5.0)
#: seconds of silence after which the daemon is asked whether it is there
_HEARTBEAT: Final = 30.0
#: seconds without a stream after which those who wait for it are told that the hypervisor is away
PATIENCE: Final = 15.0


class Listener(Protocol):
    """Told what comes; must not block and must not raise."""

    def on_event(self, event: dict[str, Any]) -> None: ...
    def on_gap(self) -> None:
        """The stream is back; events may have been missed."""
        ...

    def on_lost(self, error: Temporary) -> None:
        """The stream has been away for :data:`PATIENCE` seconds."""
        ...


class EventStream:
    """Keeps the stream open and passes events on.  ``connections`` counts how often it was (re)opened."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._listeners: list[Listener] = []
        self._task: asyncio.Task[None] | None = None
        self._connected = False
        self._hurry = asyncio.Event()
        self._asking: list[asyncio.Future[None]] = []
        self.connections = 0

    def listen(self, listener: Listener) -> None:
        """Tell ``listener`` from now on."""
        self._listeners.append(listener)

    def unlisten(self, listener: Listener) -> None:
        """Tell it no more."""
        self._listeners.remove(listener)

    async def ready(self) -> None:
        """Return once the stream is open, trying at once if it is not.

        Raises :class:`Temporary` if that attempt fails.
        """
        if self._connected:
            return
        asking: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asking.append(asking)
        self._hurry.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._keep_open(), name="hypervisor events")
        await asking

    async def close(self) -> None:
        """Close the stream; a later :meth:`ready` opens it again."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._answer(errors.unreachable(self._client.where, ConnectionError("closed")))

    async def _keep_open(self) -> None:
        delay = _BACKOFF[0]
        away_since = time.monotonic()
        while True:
            self._hurry.clear()
            try:
                socket = await self._client.websocket(
                    path("events"), heartbeat=_HEARTBEAT, type="operation,lifecycle"
                )
            except IceShelvesError as error:
                self._answer(error)
                if time.monotonic() - away_since > PATIENCE:
                    self._tell_lost(error)
                    return
                await self._pause(delay * random.uniform(0.5, 1.0))  # noqa: S311 (jitter, no secret)
                delay = min(delay * 2, _BACKOFF[1])
                continue
            try:
                self._opened()
                await self._pump(socket)
            finally:
                self._connected = False
                await socket.close()
            delay, away_since = _BACKOFF[0], time.monotonic()

    async def _pause(self, seconds: float) -> None:
        """Wait before the next attempt, unless somebody asks for the stream meanwhile."""
        try:
            await asyncio.wait_for(self._hurry.wait(), seconds)
        except TimeoutError:
            return

    def _opened(self) -> None:
        self.connections += 1
        self._connected = True
        self._answer(None)
        if self.connections > 1:
            for listener in list(self._listeners):
                listener.on_gap()

    def _answer(self, error: IceShelvesError | None) -> None:
        """Tell those who asked for the stream whether it is open."""
        asking, self._asking = self._asking, []
        for one in asking:
            if not one.done():
                if error is None:
                    one.set_result(None)
                else:
                    one.set_exception(error)

    async def _pump(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        incoming = Incoming(socket)
        while (data := await incoming.next()) is not None:
            try:
                event = json.loads(data)
            except (ValueError, RecursionError):
                # A stream that talks nonsense is cut, which makes everybody look at what is.
                return
            if isinstance(event, dict) and isinstance(event.get("metadata"), dict):
                for listener in list(self._listeners):
                    listener.on_event(event)

    def _tell_lost(self, error: IceShelvesError) -> None:
        lost = error if isinstance(error, Temporary) else errors.unreachable(self._client.where, error)
        for listener in list(self._listeners):
            listener.on_lost(lost)
