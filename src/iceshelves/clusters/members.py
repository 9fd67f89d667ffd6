"""Use cases of a cluster's members: look at them, take one out of use, and take it back into use."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from iceshelves.access import audit
from iceshelves.access.policy import Actor
from iceshelves.clusters import clusters
from iceshelves.clusters.providers import ProviderPool
from iceshelves.core.errors import Conflict, IceShelvesError, TimedOut
from iceshelves.core.log import logger
from iceshelves.core.threads import in_thread
from iceshelves.providers.base import Member, Placement, require
from iceshelves.providers.membership import member_named
from iceshelves.store.database import Database

Action = Literal["evacuate", "restore"]
#: seconds for which whoever asked is kept waiting; the work itself goes on
PATIENCE: Final = 600.0

log = logger(__name__)


@dataclass(frozen=True, slots=True)
class _Change:
    action: Action
    task: asyncio.Task[None]


class Members:
    """Members of all clusters.  Lives on the event loop; what was begun goes on when nobody waits for it."""

    def __init__(self, database: Database, providers: ProviderPool) -> None:
        self._database = database
        self._providers = providers
        self._changes: dict[tuple[int, str], _Change] = {}

    async def list(self, actor: Actor, cluster_id: int) -> Sequence[Member]:
        """The members and what each has, as they say now.

        Raises :class:`NotFound`, and what the hypervisor's silence or refusal means.
        """
        await in_thread(self._check_owner, actor, cluster_id)
        return await (await self._placement(cluster_id)).survey()

    async def change(
        self, actor: Actor, cluster_id: int, name: str, action: Action, request_id: str = ""
    ) -> Member:
        """Evacuate or restore a member, and return it as it is then.  If it is so already, that is well.

        Raises :class:`NotFound`, :class:`Conflict` ``member_offline`` or ``member_busy``,
        :class:`Unsupported` ``not_a_cluster``, and :class:`TimedOut` ``member_change_goes_on`` when it takes
        longer than anybody waits: it goes on then.
        """
        await in_thread(self._check_owner, actor, cluster_id)
        placement = await self._placement(cluster_id)
        member_named(name, await placement.members())
        await in_thread(self._note, actor, cluster_id, name, action, request_id)
        change = self._begin(placement, (cluster_id, name), action)
        done, _ = await asyncio.wait({change.task}, timeout=PATIENCE)
        if not done:
            raise TimedOut(
                f"It takes longer than {PATIENCE / 60:.0f} minutes to {action} the member {name!r}.",
                code="member_change_goes_on",
                hint="It goes on; iceshelves cluster members shows when it is done.",
            )
        change.task.result()
        return member_named(name, await placement.survey())

    async def close(self) -> None:
        """Wait for nothing more.  The hypervisor finishes by itself what it has begun."""
        tasks = [change.task for change in self._changes.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, placement: Placement, key: tuple[int, str], action: Action) -> _Change:
        """The change that runs already, if it is the same; else a new one."""
        running = self._changes.get(key)
        if running is None:
            work = placement.evacuate if action == "evacuate" else placement.restore
            task = asyncio.create_task(self._carry_out(key, work(key[1])), name=f"{action} {key[1]}")
            running = self._changes[key] = _Change(action, task)
        if running.action != action:
            raise Conflict(
                f"The member {key[1]!r} is being changed: {running.action}.",
                code="member_busy",
                hint="Wait for the end of that.",
            )
        return running

    async def _carry_out(self, key: tuple[int, str], work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except IceShelvesError as error:
            log.warning("member %s of cluster %d: %s", key[1], key[0], error.message)
            raise
        finally:
            del self._changes[key]

    async def _placement(self, cluster_id: int) -> Placement:
        return require(await self._providers.get(cluster_id), Placement)

    def _check_owner(self, actor: Actor, cluster_id: int) -> None:
        with self._database.read() as session:
            clusters.owned(session, actor, cluster_id)

    def _note(self, actor: Actor, cluster_id: int, name: str, action: Action, request_id: str) -> None:
        with self._database.write() as session:
            cluster = clusters.owned(session, actor, cluster_id)
            audit.record(session, actor, f"member.{action}", f"{cluster.name}/{name}", request_id=request_id)
