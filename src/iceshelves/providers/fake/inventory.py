"""Everything that is in a fake world, what changes, and the mark of what is adopted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from iceshelves.providers.base import Instance, InventoryEvent, Mark
from iceshelves.providers.fake.world import FakeInstance, FakeWorld, as_instance
from iceshelves.providers.ownership import is_adoption, marked_otherwise


class FakeInventory:
    """The :class:`~iceshelves.providers.base.Inventory` of the fake."""

    def __init__(self, world: FakeWorld) -> None:
        self._world = world

    async def instances(self) -> Sequence[Instance]:
        async with self._world.call("instances"):
            return [as_instance(instance) for instance in self._world.state.instances.values()]

    async def instance(self, name: str) -> Instance | None:
        async with self._world.call("instance", name):
            found = self._world.state.instances.get(name)
            return None if found is None else as_instance(found)

    async def watch(self, tell: Callable[[InventoryEvent], Awaitable[None]]) -> None:
        async with self._world.watched_by(tell):
            async with self._world.call("watch"):
                await tell(InventoryEvent("resync", "", "default"))
            await asyncio.Event().wait()

    async def adopt(self, name: str, mark: Mark) -> Instance:
        async with self._world.call("adopt", name):
            instance = self._world.instance(name)
            if instance.mark is None:
                await self._write(instance, mark)
            elif not is_adoption(instance.mark, mark.installation):
                raise marked_otherwise(name)
            return as_instance(instance)

    async def release(self, name: str, installation: str) -> Instance:
        async with self._world.call("release", name):
            instance = self._world.instance(name)
            if instance.mark is not None:
                if not is_adoption(instance.mark, installation):
                    raise marked_otherwise(name)
                await self._write(instance, None)
            return as_instance(instance)

    async def _write(self, instance: FakeInstance, mark: Mark | None) -> None:
        instance.mark = mark
        self._world.save()
        await self._world.tell("updated", instance.name)
