"""Use cases of what we have not made: look who is whose on a cluster, adopt, release.

Adopting adds our mark to an instance and changes nothing else; it gives nobody a right to delete it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import sqlalchemy as sa

from iceshelves.access import audit
from iceshelves.access.bootstrap import installation_id
from iceshelves.access.policy import Actor
from iceshelves.clusters.inventory import judged, record_some, uids_of
from iceshelves.clusters.ownership import Ownership, Verdict, uid_of
from iceshelves.clusters.providers import ProviderPool
from iceshelves.clusters.rows import owned
from iceshelves.core.errors import Conflict, IceShelvesError, InvalidInput
from iceshelves.core.threads import in_thread
from iceshelves.providers.base import Instance, Inventory, require
from iceshelves.providers.ownership import adoption
from iceshelves.store.database import Database
from iceshelves.store.models import Cluster, Deployment

#: instances that are written at once
_AT_ONCE: Final = 8
_NOT_MARKED: Final = "not marked, nothing to do"
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
    """What became of one name; ``error`` says why nothing was done, ``note`` that nothing had to be."""

    name: str
    error: IceShelvesError | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class _Asked:
    """Who wants something done to which instances."""

    actor: Actor
    cluster_id: int
    names: list[str]
    request_id: str


@dataclass(frozen=True, slots=True)
class _Acting:
    """What is written to, and the installation that writes."""

    inventory: Inventory
    installation: str


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
        acting = _Acting(inventory, installation)
        return await self._each(asked, acting, lambda name: inventory.adopt(name, adoption(installation)))

    async def release(
        self, actor: Actor, cluster_id: int, names: Sequence[str], request_id: str = ""
    ) -> list[Outcome]:
        """Take the mark of adoption away from instances, each on its own; without one already is well."""
        asked = _Asked(actor, cluster_id, _unique(names), request_id)
        installation = await in_thread(self._permit, asked, "cluster.release")
        inventory = await self._inventory(cluster_id)
        acting = _Acting(inventory, installation)
        unmarked: set[str] = set()

        async def release(name: str) -> Instance:
            found = await inventory.instance(name)
            if found is not None and found.readable and found.mark is None:
                unmarked.add(name)
            return await inventory.release(name, installation)

        outcomes = await self._each(asked, acting, release)
        return [
            replace(one, note=_NOT_MARKED) if one.error is None and one.name in unmarked else one
            for one in outcomes
        ]

    async def _inventory(self, cluster_id: int) -> Inventory:
        return require(await self._providers.get(cluster_id), Inventory)

    async def _each(
        self, asked: _Asked, acting: _Acting, act: Callable[[str], Awaitable[Instance]]
    ) -> list[Outcome]:
        room = asyncio.Semaphore(_AT_ONCE)
        done: dict[str, Instance | None] = {}

        async def one(name: str) -> Outcome:
            async with room:
                try:
                    done[name] = await act(name)
                except IceShelvesError as error:
                    return Outcome(name, await self._explained(asked, acting, name, error))
                return Outcome(name)

        outcomes = await asyncio.gather(*map(one, asked.names))
        await in_thread(record_some, self._database, asked.cluster_id, done)
        return outcomes

    async def _explained(
        self, asked: _Asked, acting: _Acting, name: str, error: IceShelvesError
    ) -> IceShelvesError:
        """Why ``name`` was refused: a deployment of ours is told apart from what others have marked."""
        if error.code != "not_ours":
            return error
        try:
            found = await acting.inventory.instance(name)
        except IceShelvesError:
            return error
        uid = uid_of(None if found is None else found.mark, acting.installation)
        if uid is None:
            return error
        explained: IceShelvesError | None = await in_thread(self._deployment_of, asked, name, uid)
        return error if explained is None else explained

    def _deployment_of(self, asked: _Asked, name: str, uid: str) -> IceShelvesError | None:
        with self._database.read() as session:
            query = (
                sa.select(Deployment.id, Deployment.instance_name, Cluster.name)
                .join(Cluster, Cluster.id == Deployment.cluster_id)
                .where(Deployment.tenant_id == asked.actor.tenant_id, Deployment.uid == uid)
            )
            made = session.execute(query).first()
        if made is None:
            return None
        number, instance, cluster = made
        return Conflict(
            f"The instance {name!r} carries the mark of our own deployment {number} ({cluster}:{instance}).",
            code="not_ours",
            hint="It needs no adoption, and was left as it is.",
        )

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
