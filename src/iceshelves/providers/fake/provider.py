"""A connected fake world: every capability there is."""

from __future__ import annotations

from typing import Any, Final

from iceshelves.providers import base
from iceshelves.providers.base import C, ServerInfo
from iceshelves.providers.fake.guest import FakeGuest
from iceshelves.providers.fake.inventory import FakeInventory
from iceshelves.providers.fake.lifecycle import FakeLifecycle, FakeReconfiguration
from iceshelves.providers.fake.placement import FakePlacement
from iceshelves.providers.fake.resources import FakeImages, FakeImageStore, FakeSnapshots, FakeVolumes
from iceshelves.providers.fake.rights import FakeRights
from iceshelves.providers.fake.world import FakeWorld


class FakeProvider:
    """Drives ``world``; several providers may drive the same one."""

    family: str = "fake"

    def __init__(self, world: FakeWorld) -> None:
        self.world: Final = world
        self._capabilities: dict[type[Any], Any] = {
            base.Lifecycle: FakeLifecycle(world),
            base.Reconfiguration: FakeReconfiguration(world),
            base.Images: FakeImages(world),
            base.ImageStore: FakeImageStore(world),
            base.Volumes: FakeVolumes(world),
            base.Guest: FakeGuest(world),
            base.Snapshots: FakeSnapshots(world),
            base.Inventory: FakeInventory(world),
            base.Placement: FakePlacement(world),
            base.Rights: FakeRights(world),
        }

    async def probe(self) -> ServerInfo:
        async with self.world.call("probe"):
            return ServerInfo(
                family="fake",
                version="1",
                api_version="1.0",
                name=self.world.name,
                clustered=bool(self.world.script.members),
                features=frozenset(),
                kinds=frozenset({"container", "virtual-machine"}),
            )

    def offers(self, capability: type[C]) -> C | None:
        found: C | None = self._capabilities.get(capability)
        return found

    async def close(self) -> None:
        """Nothing is held open; the world stays."""
