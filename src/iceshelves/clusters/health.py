"""How the clusters are: each is asked on its own, and what was found is written for all of them together.

A probe is one cheap call with a deadline of its own, and a cluster has one at a time, so a cluster that is
dead or a black hole delays only itself.  Clusters of agents are not asked: their agents come to us.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from iceshelves.clusters.providers import ProviderPool
from iceshelves.clusters.reaching import AGENT
from iceshelves.clusters.roster import Managed
from iceshelves.core import clock
from iceshelves.core.bus import Bus
from iceshelves.core.errors import IceShelvesError
from iceshelves.core.log import logger
from iceshelves.core.text import storable
from iceshelves.core.threads import in_thread
from iceshelves.providers.base import Member, Placement, Provider, ServerInfo
from iceshelves.store.database import Database
from iceshelves.store.models import Agent, Cluster

ACTIVE: Final = "active"
#: some of its members are offline
DEGRADED: Final = "degraded"
ERROR: Final = "error"
UNKNOWN: Final = "unknown"

#: seconds for one probe
DEADLINE: Final = 5.0
#: parts of the interval after which a cluster is asked again: what is known is never older than one interval
_PAUSE: Final = (0.6, 0.8)
#: members are read with every so many'th probe
_MEMBERS_EVERY: Final = 2
#: parts of the interval for which findings are gathered before they are written, and seconds at most
_GATHER: Final = (0.05, 0.2)
#: seconds beyond two polls for which an agent may be silent
_AGENT_GRACE: Final = 10.0
_AGENT_AWAY: Final = "The agent is away:"

log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Health:
    """How a cluster is: active, degraded, error or unknown, and one line for people."""

    status: str
    message: str


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found, when; ``server`` tells who answered, if somebody did."""

    health: Health
    at: datetime
    server: ServerInfo | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """A cluster that is another than before: in status, or only in words."""

    cluster_id: int
    name: str
    before: str
    health: Health


@dataclass(slots=True)
class _Beat:
    """What is kept of one cluster between probes."""

    count: int = 0
    members: Sequence[Member] = field(default_factory=tuple)


class HealthMonitor:
    """Asks each cluster every ``interval`` seconds.  Lives on the event loop."""

    def __init__(self, database: Database, providers: ProviderPool, bus: Bus, interval: float) -> None:
        self._database = database
        self._providers = providers
        self._bus = bus
        self._interval = interval
        self._found: dict[int, Finding] = {}
        self._news = asyncio.Event()

    async def care(self, cluster: Managed) -> None:
        """Ask one cluster again and again; a :data:`~iceshelves.clusters.roster.Care`."""
        if cluster.method == AGENT:
            return
        loop = asyncio.get_running_loop()
        beat = _Beat()
        await asyncio.sleep(random.uniform(0, self._interval / 10))  # noqa: S311 (jitter, no secret)
        while True:
            due = loop.time() + self._interval * random.uniform(*_PAUSE)  # noqa: S311
            self._found[cluster.id] = await self._ask(cluster, beat)
            self._news.set()
            await asyncio.sleep(max(0.0, due - loop.time()))

    async def write(self) -> None:
        """Write what is found, until cancelled: in few transactions, and none while nothing is found."""
        while True:
            await self._news.wait()
            await asyncio.sleep(min(self._interval * _GATHER[0], _GATHER[1]))
            self._news.clear()
            found, self._found = self._found, {}
            try:
                changes = await in_thread(record, self._database, found)
            except IceShelvesError as error:
                log.warning("the health of %d clusters was not written: %s", len(found), error)
                self._found = {**found, **self._found}
                await asyncio.sleep(getattr(error, "delay", 1.0))
                self._news.set()
            except Exception:
                log.exception("the health of %d clusters was not written", len(found))
            else:
                self._tell(changes)

    async def look_at_agents(self) -> None:
        """Judge all agents by when they were last seen; called regularly."""
        self._tell(await in_thread(_record_agents, self._database))

    async def _ask(self, cluster: Managed, beat: _Beat) -> Finding:
        try:
            async with asyncio.timeout(DEADLINE):
                provider = await self._providers.get(cluster.id)
                server = await provider.probe()
        except IceShelvesError as error:
            return Finding(Health(ERROR, error.message), clock.now())
        except TimeoutError:
            return Finding(Health(ERROR, f"It did not answer within {DEADLINE:.0f} s."), clock.now())
        except Exception:
            log.exception("cluster %s could not be asked", cluster.name)
            return Finding(Health(ERROR, "It could not be asked; the server's log says why."), clock.now())
        at = clock.now()
        if server.clustered and beat.count % _MEMBERS_EVERY == 0:
            beat.members = await _members(provider, beat.members)
        beat.count += 1
        return Finding(judge(server, beat.members), at, server)

    def _tell(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.before != change.health.status:
                level = "info" if change.health.status == ACTIVE else "warning"
                getattr(log, level)(
                    "cluster %s is %s: %s", change.name, change.health.status, change.health.message
                )
            self._bus.publish(f"cluster:{change.cluster_id}")


async def _members(provider: Provider, known: Sequence[Member]) -> Sequence[Member]:
    """The members as they are now, or as they were known where the cluster does not say in time."""
    placement = provider.offers(Placement)
    if placement is None:
        return ()
    try:
        async with asyncio.timeout(DEADLINE):
            return await placement.members()
    except (IceShelvesError, TimeoutError) as error:
        log.debug("members were not told: %s", error)
        return known


def judge(server: ServerInfo, members: Sequence[Member] = ()) -> Health:
    """How a cluster is that answers as ``server``."""
    if not server.kinds:
        return Health(ERROR, f"{server.name} runs neither containers nor virtual machines.")
    away = [member for member in members if not member.online]
    if away:
        words = ", ".join(f"{member.name} is {member.status.lower()}" for member in away)
        return Health(DEGRADED, f"{len(members) - len(away)} of {len(members)} members are online: {words}")
    return Health(ACTIVE, f"{server.family} {server.version} on {server.name}")


@dataclass(frozen=True, slots=True)
class AgentSeen:
    """What tells whether an agent lives.  ``poll_interval`` in seconds."""

    enrolled: bool
    last_seen: datetime | None
    poll_interval: float
    revoked: bool = False


def seen_of(agent: Agent | None) -> AgentSeen:
    """What a row tells; ``None`` where nobody was ever invited."""
    if agent is None:
        return AgentSeen(enrolled=False, last_seen=None, poll_interval=0.0)
    return AgentSeen(
        agent.key_hash is not None, agent.last_seen, agent.poll_interval, agent.revoked_on is not None
    )


def judge_agent(agent: AgentSeen, now: datetime) -> Health:
    """How a cluster is, by its agent: active while that was seen within two polls and ten seconds more."""
    if agent.revoked:
        return Health(ERROR, f"{_AGENT_AWAY} its key was revoked.")
    if agent.last_seen is None:
        state = "it was enrolled, but has not come yet." if agent.enrolled else "none has been enrolled yet."
        return Health(UNKNOWN, f"{_AGENT_AWAY} {state}")
    patience = timedelta(seconds=2 * agent.poll_interval + _AGENT_GRACE)
    if now - agent.last_seen < patience:
        return Health(ACTIVE, "Its agent comes regularly.")
    return Health(ERROR, f"{_AGENT_AWAY} it was last seen at {clock.to_text(agent.last_seen)}.")


def apply(cluster: Cluster, health: Health, now: datetime) -> bool:
    """Write ``health`` into a cluster's row, and since when it is so; whether that changed anything."""
    changed = (cluster.status, cluster.status_message) != (health.status, health.message)
    if cluster.status != health.status or cluster.status_since is None:
        cluster.status_since = now
    cluster.status, cluster.status_message, cluster.last_check = health.status, health.message, now
    return changed


_SEEN: Final = (
    sa.update(Cluster)
    .where(Cluster.id == sa.bindparam("cluster"))
    .values(last_check=sa.bindparam("at"), updated_on=Cluster.updated_on)
)
_CHANGED: Final = _SEEN.values(
    status=sa.bindparam("status_now"),
    status_message=sa.bindparam("words"),
    status_since=sa.bindparam("since"),
    is_cluster=sa.bindparam("clustered"),
    server_info=sa.bindparam("info"),
)


def record(database: Database, found: Mapping[int, Finding]) -> list[Change]:
    """Write ``found``, by the ids of clusters, in one transaction; what is different now.

    Can be repeated, and done by several servers at once: an older finding never replaces a newer one.
    """
    with database.write() as session:
        return _record(session, found)


def _record(session: Session, found: Mapping[int, Finding]) -> list[Change]:
    rows = session.execute(
        sa.select(
            Cluster.id, Cluster.name, Cluster.status, Cluster.status_message, Cluster.status_since,
            Cluster.last_check, Cluster.is_cluster, Cluster.server_info,
        )
        .where(Cluster.id.in_(found), Cluster.is_active)
        .order_by(Cluster.id)  # the same for all servers, so that none waits for another crosswise
    ).all()  # fmt: skip
    seen: list[dict[str, Any]] = []
    changed: list[dict[str, Any]] = []
    changes: list[Change] = []
    for row in rows:
        finding = found[row.id]
        if row.last_check is not None and row.last_check >= finding.at:
            continue
        words = storable(finding.health.message)
        health = Health(finding.health.status, words)
        clustered = row.is_cluster if finding.server is None else finding.server.clustered
        info = {**row.server_info, **_facts(finding.server)}
        same_words = (row.status, row.status_message) == (health.status, words)
        if not same_words:
            changes.append(Change(row.id, row.name, row.status, health))
        if same_words and row.status_since and (clustered, info) == (row.is_cluster, row.server_info):
            seen.append({"cluster": row.id, "at": finding.at})
            continue
        since = row.status_since if row.status == health.status and row.status_since else finding.at
        changed.append({
            "cluster": row.id, "at": finding.at, "status_now": health.status, "words": words,
            "since": since, "clustered": clustered, "info": info,
        })  # fmt: skip
    connection = session.connection()
    for statement, values in ((_SEEN, seen), (_CHANGED, changed)):
        if values:
            connection.execute(statement, values)
    return changes


def _facts(server: ServerInfo | None) -> dict[str, Any]:
    """What is kept of who answers."""
    if server is None:
        return {}
    return {
        "family": server.family,
        "version": server.version,
        "api_version": server.api_version,
        "name": server.name,
        "kinds": sorted(server.kinds),
    }


def _record_agents(database: Database) -> list[Change]:
    now = clock.now()
    with database.write() as session:
        query = (
            sa.select(Cluster.id, Cluster.status, Cluster.status_message, Agent)
            .outerjoin(Agent, Agent.cluster_id == Cluster.id)
            .where(Cluster.connection_method == AGENT, Cluster.is_active)
        )
        found: dict[int, Finding] = {}
        for row in session.execute(query):
            health = judge_agent(seen_of(row.Agent), now)
            if health.status == ACTIVE and not _was_away(row):
                health = Health(row.status, row.status_message)  # as the agent reported of its hypervisor
            found[row.id] = Finding(health, now)
        return _record(session, found)


def _was_away(row: Any) -> bool:
    return bool(row.status == UNKNOWN or row.status_message.startswith(_AGENT_AWAY))
