"""One task for each managed cluster and each kind of care, in step with the table of clusters.

Each cluster is cared for on its own, so one that hangs delays nobody else.  Whoever adds, changes or deletes
a cluster need not know of this: the table is read again and again, which also covers what another server
on the same database wrote.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from iceshelves.clusters.providers import ProviderPool
from iceshelves.core.errors import IceShelvesError
from iceshelves.core.log import logger
from iceshelves.core.threads import in_thread
from iceshelves.store.database import Database
from iceshelves.store.models import Cluster

#: seconds between two looks at the table
_LOOK_SECONDS: Final = 5.0

log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Managed:
    """A cluster that is cared for.  ``way`` is all that says how it is reached, to be compared."""

    id: int
    tenant_id: int
    name: str
    method: str
    way: tuple[Any, ...]


#: cares for one cluster until it is cancelled; one that returns has nothing to do for that cluster
Care = Callable[[Managed], Awaitable[None]]


class Roster:
    """Lives on the event loop.  A cluster that is reached in another way than before is begun anew."""

    def __init__(self, database: Database, providers: ProviderPool, cares: Sequence[Care]) -> None:
        self._database = database
        self._providers = providers
        self._cares = cares
        self._known: dict[int, Managed] = {}
        self._tasks: dict[int, list[asyncio.Task[None]]] = {}
        self._hurry = asyncio.Event()

    async def keep(self) -> None:
        """Keep the tasks in step with the table until cancelled; then end them."""
        try:
            while True:
                try:
                    await self.look()
                except IceShelvesError as error:
                    log.warning("the clusters could not be read: %s", error)
                except Exception:
                    log.exception("the clusters could not be read")
                await self._pause()
        finally:
            ended = [task for tasks in self._tasks.values() for task in tasks]
            for task in ended:
                task.cancel()
            await asyncio.gather(*ended, return_exceptions=True)

    async def look(self) -> None:
        """Read the table, and begin or end what it asks for."""
        found = {cluster.id: cluster for cluster in await in_thread(_managed, self._database)}
        for cluster_id, known in list(self._known.items()):
            if found.get(cluster_id) != known:
                self._end(cluster_id)
                if cluster_id not in found or found[cluster_id].way != known.way:
                    # Closing may take a while where the other side is dead; nobody waits for that.
                    task = asyncio.create_task(self._providers.drop(cluster_id))
                    task.add_done_callback(_tell_fault)
        for cluster in found.values():
            if cluster.id not in self._tasks:
                self._begin(cluster)

    def renew(self, cluster_id: int) -> None:
        """Begin a cluster anew, now: its connection was changed or closed."""
        self._end(cluster_id)
        self._hurry.set()

    def _begin(self, cluster: Managed) -> None:
        self._known[cluster.id] = cluster
        self._tasks[cluster.id] = [asyncio.create_task(_cared(care, cluster)) for care in self._cares]

    def _end(self, cluster_id: int) -> None:
        self._known.pop(cluster_id, None)
        for task in self._tasks.pop(cluster_id, ()):
            task.cancel()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                await self._hurry.wait()
        except TimeoutError:
            return
        self._hurry.clear()


async def _cared(care: Care, cluster: Managed) -> None:
    """A fault of our own in one cluster's care does not end it, nor the others'."""
    while True:
        try:
            await care(cluster)
        except Exception:
            log.exception("the care of cluster %s failed; it begins anew", cluster.name)
            await asyncio.sleep(_LOOK_SECONDS)
        else:
            return


def _tell_fault(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.warning("a connection was not closed well: %s", error)


def _managed(database: Database) -> list[Managed]:
    way = (
        Cluster.provider, Cluster.endpoint_url, Cluster.connection, Cluster.secrets, Cluster.project,
        Cluster.options,
    )  # fmt: skip
    query = sa.select(Cluster.id, Cluster.tenant_id, Cluster.name, Cluster.connection_method, *way)
    with database.read() as session:
        return [
            Managed(row[0], row[1], row[2], row[3], tuple(row[4:]))
            for row in session.execute(query.where(Cluster.is_active))
        ]
