"""What may be done in a fake world: everything, unless its script says otherwise."""

from __future__ import annotations

from iceshelves.providers.fake.world import FakeWorld


class FakeRights:
    """The :class:`~iceshelves.providers.base.Rights` of the fake."""

    def __init__(self, world: FakeWorld) -> None:
        self._world = world

    async def check(self) -> str:
        async with self._world.call("check_rights"):
            return "everything may be done here"
