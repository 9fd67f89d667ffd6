"""Use cases of what we have not made: look who is whose on a cluster, adopt, release.

Adopting adds our mark to an instance and changes nothing else; it gives nobody a right to delete it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from iceshelves.access import audit
from iceshelves.access.bootstrap import installation_id
from iceshelves.access.policy import Actor
from iceshelves.clusters.inventory import judged, record_some, uids_of
from iceshelves.clusters.ownership import Ownership, Verdict
from iceshelves.clusters.providers import ProviderPool
from iceshelves.clusters.rows import owned
from iceshelves.core.errors import IceShelvesError, InvalidInput
from iceshelves.core.threads import in_thread
from iceshelves.providers.base import Instance, Inventory, require
from iceshelves.providers.ownership import adoption
from iceshelves.store.database import Database

#: instances that are written at once
_AT_ONCE: Final = 8
_UNREAD: Final = Verdict(Ownership.FOREIGN, "Its member is away, so its mark cannot be read.")


@dataclass(frozen=True, slots=True)
class Judged:
    """An instance as it is now, and whose it is."""

    instance: Instance
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Scan:
    """What a look at a cluster found, by name."""

    cluster: str
    instances: tuple[Judged, ...]

    @property
    def counts(self) -> dict[Ownership, int]:
        """How many there are of each."""
        counted = Counter(judged.verdict.ownership for judged in self.instances)
        return {ownership: counted[ownership] for ownership in Ownership}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one name; ``error`` says why nothing was done."""

    name: str
    error: IceShelvesError | None = None


@dataclass(frozen=True, slots=True)
class _Asked:
    """Who wants something done to which instances."""

    actor: Actor
    cluster_id: int
    names: list[str]
    request_id: str


class Adoptions:
    """Talks to clusters, so it is asynchronous.  All methods raise :class:`NotFound` for no such cluster."""

    def __init__(self, database: Database, providers: ProviderPool) -> None:
        self._database = database
        self._providers = providers

    async def scan(self, actor: Actor, cluster_id: int) -> Scan:
        """Read a cluster's instances now and judge whose they are.  Nothing is written anywhere."""
        await in_thread(self._check_owner, actor, cluster_id)
        instances = await (await self._inventory(cluster_id)).instances()
        return await in_thread(self._judge, actor, cluster_id, instances)

    async def adopt(
        self, actor: Actor, cluster_id: int, names: Sequence[str], request_id: str = ""
    ) -> list[Outcome]:
        """Mark instances as adopted, each on its own; adopted already is well."""
        asked = _Asked(actor, cluster_id, _unique(names), request_id)
        installation = await in_thread(self._permit, asked, "cluster.adopt")
        inventory = await self._inventory(cluster_id)
        return await self._each(asked, lambda name: inventory.adopt(name, adoption(installation)))

    async def release(
        self, actor: Actor, cluster_id: int, names: Sequence[str], request_id: str = ""
    ) -> list[Outcome]:
        """Take the mark of adoption away from instances, each on its own; without one already is well."""
        asked = _Asked(actor, cluster_id, _unique(names), request_id)
        installation = await in_thread(self._permit, asked, "cluster.release")
        inventory = await self._inventory(cluster_id)
        return await self._each(asked, lambda name: inventory.release(name, installation))

    async def _inventory(self, cluster_id: int) -> Inventory:
        return require(await self._providers.get(cluster_id), Inventory)

    async def _each(self, asked: _Asked, act: Callable[[str], Awaitable[Instance]]) -> list[Outcome]:
        room = asyncio.Semaphore(_AT_ONCE)
        done: dict[str, Instance | None] = {}

        async def one(name: str) -> Outcome:
            async with room:
                try:
                    done[name] = await act(name)
                except IceShelvesError as error:
                    return Outcome(name, error)
                return Outcome(name)

        outcomes = await asyncio.gather(*map(one, asked.names))
        await in_thread(record_some, self._database, asked.cluster_id, done)
        return outcomes

    def _check_owner(self, actor: Actor, cluster_id: int) -> None:
        with self._database.read() as session:
            owned(session, actor, cluster_id)

    def _permit(self, asked: _Asked, action: str) -> str:
        """Write down who is about to do what, since nothing may be done unseen; our installation's id."""
        with self._database.write() as session:
            cluster = owned(session, asked.actor, asked.cluster_id)
            if not asked.names:
                raise InvalidInput(
                    "No instance is named.",
                    code="no_instances_named",
                    hint="Name some; iceshelves cluster scan shows those that there are.",
                )
            details = {"instances": asked.names}
            audit.record(
                session, asked.actor, action, cluster.name, request_id=asked.request_id, details=details
            )
            return installation_id(session)

    def _judge(self, actor: Actor, cluster_id: int, instances: Sequence[Instance]) -> Scan:
        with self._database.read() as session:
            cluster = owned(session, actor, cluster_id)
            uids = uids_of(session, cluster_id, instances)
            verdicts = judged(session, cluster, uids)
        found = []
        for instance in sorted(instances, key=lambda instance: instance.name):
            unread = not instance.readable and uids[instance.name] is None
            found.append(Judged(instance, _UNREAD if unread else verdicts[instance.name]))
        return Scan(cluster.name, tuple(found))


def _unique(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(names))
