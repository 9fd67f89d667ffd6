"""A connected Incus or LXD: its capabilities, sharing one client and one event stream."""

from __future__ import annotations

from typing import Any

from iceshelves.connections.values import HypervisorConnection
from iceshelves.providers import base
from iceshelves.providers.base import C, ServerInfo
from iceshelves.providers.incus.client import Client
from iceshelves.providers.incus.events import EventStream
from iceshelves.providers.incus.guest import IncusGuest
from iceshelves.providers.incus.image_store import IncusImageStore
from iceshelves.providers.incus.images import IMAGE_SERVERS, IncusImages
from iceshelves.providers.incus.inventory import IncusInventory
from iceshelves.providers.incus.lifecycle import IncusLifecycle
from iceshelves.providers.incus.operations import Operations
from iceshelves.providers.incus.placement import IncusPlacement
from iceshelves.providers.incus.reconfiguration import IncusReconfiguration
from iceshelves.providers.incus.rights import IncusRights
from iceshelves.providers.incus.server import Server
from iceshelves.providers.incus.snapshots import IncusSnapshots
from iceshelves.providers.incus.volumes import IncusVolumes


class IncusProvider:
    """One per cluster.  Opens nothing before it is first used; all of it belongs to one event loop."""

    def __init__(self, family: str, connection: HypervisorConnection) -> None:
        self.family = family
        self._client = Client(connection)
        self._events = EventStream(self._client)
        self._operations = Operations(self._client, self._events)
        self._server = Server(self._client, family)
        servers = connection.image_servers
        lifecycle = IncusLifecycle(self._client, self._operations, self._server)
        self._capabilities: dict[type[Any], Any] = {
            base.Lifecycle: lifecycle,
            base.Images: IncusImages(
                self._client,
                self._operations,
                self._server,
                IMAGE_SERVERS[family] if servers is None else servers,
            ),
            base.ImageStore: IncusImageStore(self._client, self._operations),
            base.Guest: IncusGuest(self._client, self._operations),
            base.Reconfiguration: IncusReconfiguration(self._client, self._operations, lifecycle),
            base.Volumes: IncusVolumes(self._client, self._operations),
            base.Snapshots: IncusSnapshots(self._client, self._operations),
            base.Inventory: IncusInventory(self._client, self._events, self._operations, lifecycle),
            base.Rights: IncusRights(self._client),
            base.Placement: IncusPlacement(self._client, self._operations, self._server),
        }

    async def probe(self) -> ServerInfo:
        return await self._server.probe()

    def offers(self, capability: type[C]) -> C | None:
        found: C | None = self._capabilities.get(capability)
        return found

    async def close(self) -> None:
        await self._operations.close()
        await self._events.close()
        await self._client.close()
