"""Everything that is there, ours or not, what changes, and the mark of what is adopted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from iceshelves.core.errors import Conflict, NotFound, Temporary
from iceshelves.providers.base import Instance, InventoryEvent, Mark
from iceshelves.providers.incus import wire
from iceshelves.providers.incus.client import Answer, Call, Client, path
from iceshelves.providers.incus.events import EventStream
from iceshelves.providers.incus.lifecycle import IncusLifecycle
from iceshelves.providers.incus.operations import Operations
from iceshelves.providers.ownership import instance_not_found, is_adoption, marked_otherwise

#: events held for a slow watcher; beyond that it is told to look at everything
_BACKLOG: Final = 1000
_PREFIX: Final = "/1.0/instances/"
#: lifecycle events of instances that leave what we list of them as it was
_NO_CHANGE: Final = (
    "instance-backup-", "instance-console", "instance-exec", "instance-file-", "instance-log-",
    "instance-metadata-", "instance-snapshot-",
)  # fmt: skip
#: writes that may find the instance changed by somebody else in between
_ATTEMPTS: Final = 3
_WRITABLE: Final = ("architecture", "description", "devices", "ephemeral", "profiles", "stateful")


class IncusInventory:
    """The :class:`~iceshelves.providers.base.Inventory` of Incus and LXD."""

    def __init__(
        self, client: Client, events: EventStream, operations: Operations, lifecycle: IncusLifecycle
    ) -> None:
        self._client = client
        self._events = events
        self._operations = operations
        self._lifecycle = lifecycle

    async def instances(self) -> Sequence[Instance]:
        return _listed(await self._client.get_objects(path("instances")))

    async def instance(self, name: str) -> Instance | None:
        try:
            raw = await self._client.get_object(path("instances", name))
        except NotFound:
            return await self._lifecycle.find(name)
        return None if _replaced_by(raw) else wire.instance_from_wire(raw)

    async def watch(self, tell: Callable[[InventoryEvent], Awaitable[None]]) -> None:
        watcher = _Watcher(self._client.project)
        self._events.listen(watcher)
        try:
            await self._events.ready()
            watcher.on_gap()
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

    async def adopt(self, name: str, mark: Mark) -> Instance:
        async def add(answer: Answer, config: Mapping[str, Any]) -> None:
            if is_adoption(wire.mark_from_config(config), mark.installation):
                return
            if wire.is_marked(config):
                raise marked_otherwise(name)
            body = {"config": wire.adoption_to_config(mark)}
            await self._client.call(Call("PATCH", path("instances", name), body, answer.etag))

        return await self._rewrite(name, add)

    async def release(self, name: str, installation: str) -> Instance:
        async def take(answer: Answer, config: Mapping[str, Any]) -> None:
            mark = wire.mark_from_config(config)
            if mark is None and not wire.is_marked(config):
                return
            if mark is None or not is_adoption(mark, installation):
                raise marked_otherwise(name)
            # A PATCH cannot remove a key, so everything else is written as it was read.
            body = {key: answer.metadata.get(key) for key in _WRITABLE}
            body["config"] = {k: v for k, v in config.items() if k not in wire.adoption_to_config(mark)}
            await self._operations.run(Call("PUT", path("instances", name), body, answer.etag))

        return await self._rewrite(name, take)

    async def _rewrite(
        self, name: str, write: Callable[[Answer, Mapping[str, Any]], Awaitable[None]]
    ) -> Instance:
        """Read, let ``write`` write what it read, and read again; anew where it was changed in between."""
        attempt = 1
        while True:
            answer = await self._read(name)
            try:
                await write(answer, answer.metadata.get("config") or {})
            except Conflict as error:
                if error.code != "changed_meanwhile" or attempt == _ATTEMPTS:
                    raise
                attempt += 1
            else:
                return wire.instance_from_wire((await self._read(name)).metadata)

    async def _read(self, name: str) -> Answer:
        where = path("instances", name)
        try:
            answer = await self._client.call(Call("GET", where))
        except NotFound as error:
            raise instance_not_found(name) from error
        return replace(answer, metadata=self._client.as_object(answer.metadata, where))

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
        for told in _instance_events(event, self._project):
            if self._queue.qsize() >= _BACKLOG:
                self._drop_all()
                self.on_gap()
            self._queue.put_nowait(told)

    def on_gap(self) -> None:
        self._queue.put_nowait(InventoryEvent("resync", "", self._project))

    def on_lost(self, error: Temporary) -> None:
        self._queue.put_nowait(error)

    def _drop_all(self) -> None:
        while not self._queue.empty():
            self._queue.get_nowait()


def _instance_events(event: dict[str, Any], project: str) -> Iterable[InventoryEvent]:
    """A lifecycle event of an instance: its source reads ``/1.0/instances/NAME[?project=P]``.

    A renaming is two: one for each name.
    """
    metadata = event["metadata"]
    action, source = str(metadata.get("action", "")), str(metadata.get("source", ""))
    parts = urlsplit(source)
    if event.get("type") != "lifecycle" or not parts.path.startswith(_PREFIX):
        return
    if action.startswith(_NO_CHANGE):
        return
    names = [unquote(parts.path.removeprefix(_PREFIX).split("/", 1)[0])]
    context = metadata.get("context")
    if isinstance(context, dict) and context.get("old_name"):
        names.append(str(context["old_name"]))
    for name in names:
        yield InventoryEvent(action, name, str(event.get("project") or project))


def _listed(listed: Sequence[dict[str, Any]]) -> list[Instance]:
    """All of them; one that waits to take another's place is no instance of its own (see ``replacement``).

    Where the place is empty, the replacement was cut off, and it is shown under the name it waits for.
    """
    found = {str(raw.get("name", "")): wire.instance_from_wire(raw) for raw in listed}
    waiting = {str(raw.get("name", "")): replaces for raw in listed if (replaces := _replaced_by(raw))}
    for name, replaces in waiting.items():
        successor = found.pop(name)
        found.setdefault(replaces, replace(successor, name=replaces))
    return list(found.values())


def _replaced_by(raw: Mapping[str, Any]) -> str:
    """The name that the instance ``raw`` waits for; empty if it has its own."""
    name = str((raw.get("config") or {}).get(wire.REPLACES) or "")
    return "" if name == raw.get("name") else name
