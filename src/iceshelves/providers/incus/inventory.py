"""Everything that is there, ours or not, and what changes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from iceshelves.core.errors import Temporary
from iceshelves.providers.base import Instance, InventoryEvent
from iceshelves.providers.incus import wire
from iceshelves.providers.incus.client import Client, path
from iceshelves.providers.incus.events import EventStream

#: events held for a slow watcher; beyond that it is told to look at everything
_BACKLOG: Final = 1000
_PREFIX: Final = "/1.0/instances/"


class IncusInventory:
    """The :class:`~iceshelves.providers.base.Inventory` of Incus and LXD."""

    def __init__(self, client: Client, events: EventStream) -> None:
        self._client = client
        self._events = events

    async def instances(self) -> Sequence[Instance]:
        return [wire.instance_from_wire(raw) for raw in await self._client.get_objects(path("instances"))]

    async def watch(self, tell: Callable[[InventoryEvent], Awaitable[None]]) -> None:
        watcher = _Watcher(self._client.project)
        self._events.listen(watcher)
        try:
            await self._events.ready()
            while True:
                try:
                    told = await watcher.next()
                except Temporary as error:
                    # The stream has given up; ask again until it is back, and a resync is told.
                    await asyncio.sleep(error.delay)
                    await self._ask_again()
                else:
                    await tell(told)
        finally:
            self._events.unlisten(watcher)

    async def _ask_again(self) -> None:
        while True:
            try:
                await self._events.ready()
            except Temporary as error:
                await asyncio.sleep(error.delay)
            else:
                return


class _Watcher:
    def __init__(self, project: str) -> None:
        self._project = project
        self._queue: asyncio.Queue[InventoryEvent | Temporary] = asyncio.Queue()

    async def next(self) -> InventoryEvent:
        told = await self._queue.get()
        if isinstance(told, Temporary):
            raise told
        return told

    def on_event(self, event: dict[str, Any]) -> None:
        told = _instance_event(event, self._project)
        if told is not None:
            if self._queue.qsize() >= _BACKLOG:
                self._drop_all()
                told = self._resync()
            self._queue.put_nowait(told)

    def on_gap(self) -> None:
        self._queue.put_nowait(self._resync())

    def on_lost(self, error: Temporary) -> None:
        self._queue.put_nowait(error)

    def _resync(self) -> InventoryEvent:
        return InventoryEvent("resync", "", self._project)

    def _drop_all(self) -> None:
        while not self._queue.empty():
            self._queue.get_nowait()


def _instance_event(event: dict[str, Any], project: str) -> InventoryEvent | None:
    """A lifecycle event of an instance: its source reads ``/1.0/instances/NAME[?project=P]``."""
    metadata = event["metadata"]
    action, source = str(metadata.get("action", "")), str(metadata.get("source", ""))
    parts = urlsplit(source)
    if event.get("type") != "lifecycle" or not parts.path.startswith(_PREFIX):
        return None
    name = unquote(parts.path.removeprefix(_PREFIX).split("/", 1)[0])
    return InventoryEvent(action, name, str(event.get("project") or project))
