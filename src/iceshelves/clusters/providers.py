"""The open providers: one per cluster, made when it is first needed, shared by all that work on it."""

from __future__ import annotations

import asyncio

from iceshelves.clusters.reaching import Reach
from iceshelves.connections.values import Connection
from iceshelves.core.errors import NotFound
from iceshelves.core.threads import in_thread
from iceshelves.providers.base import Provider
from iceshelves.providers.registry import open_provider
from iceshelves.store.database import Database
from iceshelves.store.models import Cluster


class ProviderPool:
    """Lives on the event loop."""

    def __init__(self, database: Database, reach: Reach) -> None:
        self._database = database
        self._reach = reach
        self._open: dict[int, Provider] = {}

    async def get(self, cluster_id: int) -> Provider:
        """The provider of a cluster.  Raises :class:`NotFound`, :class:`InvalidInput`."""
        found = self._open.get(cluster_id)
        if found is not None:
            return found
        family, connection = await in_thread(self._look_up, cluster_id)
        if cluster_id not in self._open:  # nobody was faster
            self._open[cluster_id] = open_provider(family, connection)
        return self._open[cluster_id]

    def _look_up(self, cluster_id: int) -> tuple[str, Connection]:
        with self._database.read() as session:
            cluster = session.get(Cluster, cluster_id)
            if cluster is None:
                raise NotFound("The cluster has been deleted.", code="cluster_not_found")
            return cluster.provider, self._reach.connection(cluster)

    async def drop(self, cluster_id: int) -> None:
        """Close the provider of a cluster that was changed or deleted."""
        found = self._open.pop(cluster_id, None)
        if found is not None:
            await found.close()

    async def close(self) -> None:
        """Close them all."""
        await asyncio.gather(*(self.drop(cluster_id) for cluster_id in list(self._open)))
