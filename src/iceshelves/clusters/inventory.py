"""All instances of all clusters in one table, kept current by events and reconciled by one cheap full read.

An event leads to one look at the instance that it names; many at once, a gap in the stream, and ten minutes
without a full read lead to one read of everything.  Whose an instance is follows from its mark and our
records, and is judged anew for the whole cluster whenever anything of it is written.  A cluster that is away
keeps its rows.  Those of clusters with agents come from the agents' reports.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from iceshelves.access.bootstrap import installation_id
from iceshelves.clusters.ownership import Claim, Verdict, judge, uid_of
from iceshelves.clusters.providers import ProviderPool
from iceshelves.clusters.reaching import AGENT
from iceshelves.clusters.roster import Managed
from iceshelves.core import clock
from iceshelves.core.bus import Bus
from iceshelves.core.errors import IceShelvesError
from iceshelves.core.log import logger
from iceshelves.core.text import storable
from iceshelves.core.threads import in_thread
from iceshelves.core.together import until_one_ends
from iceshelves.providers.base import Instance, Inventory, InventoryEvent
from iceshelves.providers.ownership import ADOPTED
from iceshelves.store.database import Database
from iceshelves.store.models import Cluster
from iceshelves.store.queries import inventory as queries

#: seconds for which events are gathered
_GATHER: Final = 0.15
#: times as long as reading and writing took is a cluster left alone, in seconds from the first to the second
_REST: Final = 10.0
_REST_SECONDS: Final = (0.2, 3.0)
#: more instances than these are read all at once
_MANY: Final = 8
#: seconds for which it is not written again that nothing has changed
_FRESH_SECONDS: Final = 60.0
#: writes that may meet another server's
_ATTEMPTS: Final = 3
#: seconds between two full reads, and the part of them by which clusters differ
RECONCILE_SECONDS: Final = 600.0
_JITTER: Final = 0.2
#: seconds between attempts at a cluster that is away; news of its health ends the wait
_AWAY_SECONDS: Final = 30.0

log = logger(__name__)


class InventoryKeeper:
    """Follows each cluster's events.  Lives on the event loop."""

    def __init__(self, database: Database, providers: ProviderPool, bus: Bus) -> None:
        self._database = database
        self._providers = providers
        self._bus = bus

    async def care(self, cluster: Managed) -> None:
        """Keep one cluster's rows current; a :data:`~iceshelves.clusters.roster.Care`."""
        if cluster.method == AGENT:
            return
        with self._bus.subscribe(f"cluster:{cluster.id}") as news:
            while True:
                try:
                    provider = await self._providers.get(cluster.id)
                    inventory = provider.offers(Inventory)
                    if inventory is None:
                        return
                    await self._follow(cluster, inventory)
                except IceShelvesError as error:
                    log.debug("the instances of %s cannot be followed: %s", cluster.name, error)
                await news.wait(_AWAY_SECONDS * random.uniform(0.5, 1.0))  # noqa: S311 (jitter, no secret)

    async def _follow(self, cluster: Managed, inventory: Inventory) -> None:
        """Until the cluster is away; raises why."""
        changes = _Changes()
        await until_one_ends(_watch(inventory, changes), self._keep(cluster, inventory, changes))

    async def _keep(self, cluster: Managed, inventory: Inventory, changes: _Changes) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + _until_next()
        while True:
            names = await changes.take(due - loop.time())
            began = loop.time()
            if names is None:
                due = loop.time() + _until_next()
                await in_thread(record_full, self._database, cluster.id, await inventory.instances())
            else:
                seen = dict(zip(names, await asyncio.gather(*map(inventory.instance, names)), strict=True))
                await in_thread(record_some, self._database, cluster.id, seen)
            self._bus.publish(f"instances:{cluster.id}")
            shortest, longest = _REST_SECONDS
            await asyncio.sleep(min(longest, max(shortest, _REST * (loop.time() - began))))


async def _watch(inventory: Inventory, changes: _Changes) -> None:
    await inventory.watch(changes.note)


class _Changes:
    """What has changed since it was looked at last: some names, or all."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._all = False
        self._some = asyncio.Event()

    async def note(self, event: InventoryEvent) -> None:
        """Called for each event; never waits."""
        if event.action == "resync":
            self._all = True
        else:
            self._names.add(event.name)
        self._some.set()

    async def take(self, seconds: float) -> list[str] | None:
        """Wait for changes, gather what comes with them, and forget them: the names, or ``None`` for all.

        All are due after ``seconds`` without a full read, too.
        """
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._some.wait()
        except TimeoutError:
            self._all = True
        await asyncio.sleep(_GATHER)
        names, whole = self._names, self._all or len(self._names) > _MANY
        self._names, self._all = set(), False
        self._some.clear()
        return None if whole else sorted(names)


def _until_next() -> float:
    return RECONCILE_SECONDS * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 (jitter, no secret)


def record_full(database: Database, cluster_id: int, instances: Sequence[Instance]) -> None:
    """Write down that ``instances`` are all that there are on a cluster."""
    found = {instance.name: instance for instance in instances}
    _record(database, cluster_id, lambda known: {**dict.fromkeys(known), **found})
    stale = clock.later(-_FRESH_SECONDS)
    with database.write() as session:
        queries.touch(session, cluster_id, stale)


def record_all(session: Session, cluster: Cluster, found: Mapping[str, Instance]) -> None:
    """The same by name and in a transaction that is going on: what an agent tells of its hypervisor."""
    if not queries.hold(session, cluster.id):
        return
    known = queries.of_cluster(session, cluster.id)
    wanted = _as_seen(session, cluster, known, {**dict.fromkeys(known), **found})
    queries.replace(session, cluster, known, wanted)
    queries.touch(session, cluster.id, clock.later(-_FRESH_SECONDS))


def record_some(database: Database, cluster_id: int, seen: Mapping[str, Instance | None]) -> None:
    """Write down how the instances in ``seen`` are; ``None`` is one that is gone."""
    _record(database, cluster_id, lambda _known: seen)


def judged(session: Session, cluster: Cluster, uids: Mapping[str, str | None]) -> dict[str, Verdict]:
    """Whose the instances in ``cluster`` are; ``uids`` as for :func:`.ownership.judge`."""
    made = {uid for uid in uids.values() if uid is not None and not uid.startswith(ADOPTED)}
    claims = [
        Claim(row.id, row.uid, row.instance_name, row.cluster_id, row.cluster_name, row.living)
        for row in queries.claims(session, cluster.tenant_id, cluster.id, made)
    ]
    return judge(uids, claims, cluster.id)


def uids_of(session: Session, cluster_id: int, instances: Iterable[Instance]) -> dict[str, str | None]:
    """The uids in our marks by the names of ``instances``; those of a member that is away as last known."""
    installation = installation_id(session)
    uids: dict[str, str | None] = {}
    unread: list[str] = []
    for instance in instances:
        uids[instance.name] = _kept(uid_of(instance.mark, installation))
        if not instance.readable:
            unread.append(instance.name)
    if unread:
        known = queries.of_cluster(session, cluster_id)
        uids.update({name: known[name]["deployment_uid"] for name in unread if name in known})
    return uids


def _record(
    database: Database,
    cluster_id: int,
    seen: Callable[[Collection[str]], Mapping[str, Instance | None]],
) -> None:
    """Write what is different now.  That is found out before anything is locked: nobody waits for it."""
    for attempt in range(_ATTEMPTS):
        with database.read() as session:
            cluster = session.get(Cluster, cluster_id)
            if cluster is None:
                return
            known = queries.of_cluster(session, cluster_id)
            wanted = _as_seen(session, cluster, known, seen(known))
        if wanted == known:
            return
        try:
            with database.write() as session:
                if queries.hold(session, cluster_id):
                    queries.replace(session, cluster, known, wanted)
        except IntegrityError:  # another server wrote the same meanwhile
            if attempt + 1 == _ATTEMPTS:
                raise
        else:
            return


def _as_seen(
    session: Session, cluster: Cluster, known: queries.Rows, seen: Mapping[str, Instance | None]
) -> queries.Rows:
    """The rows of ``cluster`` as they should be now."""
    installation = installation_id(session)
    wanted = dict(known)
    for name, instance in seen.items():
        if instance is None:
            wanted.pop(name, None)
        elif instance.readable:
            wanted[name] = _row(instance, installation)
        elif name in known:  # its member is away; one that was never seen is nobody's to judge
            wanted[name] = {**known[name], "power": instance.power}
    verdicts = judged(session, cluster, {name: row["deployment_uid"] for name, row in wanted.items()})
    return {
        name: {**row, "ownership": verdicts[name].ownership.value, "reason": verdicts[name].reason}
        for name, row in wanted.items()
    }


def _row(instance: Instance, installation: str) -> dict[str, Any]:
    """What is kept of an instance, but for whose it is."""
    return {
        "kind": instance.kind,
        "power": instance.power,
        "member": None if instance.member is None else storable(instance.member)[:63],
        "architecture": storable(instance.architecture)[:32],
        "image": storable(instance.image)[:64],
        "description": storable(instance.description),
        "deployment_uid": _kept(uid_of(instance.mark, installation)),
    }


def _kept(uid: str | None) -> str | None:
    """``uid`` as the database takes it; a mark is but a text that anybody may have edited."""
    return None if uid is None else storable(uid)[:36]
