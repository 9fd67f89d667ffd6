"""Agents: enrolling them, knowing them again, and what happens at a poll.

An enrolment token is good once and for an hour; the key that it is exchanged for is kept as a hash.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from socket import socket
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from iceshelves.access import audit
from iceshelves.access.bootstrap import system_actor
from iceshelves.access.cipher import Cipher
from iceshelves.access.policy import Actor
from iceshelves.access.tokens import fingerprint
from iceshelves.clusters import clusters, health, inventory
from iceshelves.clusters.reaching import AGENT, passes_images
from iceshelves.core import clock
from iceshelves.core.bus import Bus
from iceshelves.core.errors import (
    Conflict,
    Denied,
    IceShelvesError,
    InvalidInput,
    Unauthenticated,
    Unsupported,
)
from iceshelves.core.log import logger
from iceshelves.core.secret import Secret
from iceshelves.core.text import storable
from iceshelves.core.threads import in_thread
from iceshelves.deploy import claims, records
from iceshelves.deploy.agent_streams import AgentStreams
from iceshelves.deploy.job import Job
from iceshelves.deploy.messages import (
    LEASE_SECONDS,
    AgentSettings,
    Enrolled,
    Enrolment,
    Poll,
    PollAnswer,
    SeenInstance,
)
from iceshelves.deploy.runner import Runner
from iceshelves.operations import rows
from iceshelves.operations.job import Ending
from iceshelves.providers.base import Instance, Mark
from iceshelves.store.database import Database
from iceshelves.store.models import Agent, Cluster

#: prefixes let scanners for leaked secrets find them
KEY_PREFIX: Final = "isa_"
TOKEN_PREFIX: Final = "isn_"
_TOKEN_SECONDS: Final = 3600.0
#: seconds after which a held poll looks into the database even if nobody woke it
_LOOK_SECONDS: Final = 5.0


log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Known:
    """An agent that has shown its key, of which ``shown`` is the hash."""

    agent_id: int
    cluster_id: int
    tenant_id: int
    shown: str


@dataclass(slots=True)
class _Ended:
    """Operations that ended in a poll, whose followers are told once it is committed."""

    jobs: list[tuple[Job, Ending]]
    told: set[str]


class Agents:
    """Safe from every thread, but for :meth:`poll` and :meth:`open_stream`, which live on the event loop."""

    def __init__(
        self, database: Database, cipher: Cipher, bus: Bus, runner: Runner, default_limit: int
    ) -> None:
        self._database = database
        self._cipher = cipher
        self._bus = bus
        self._runner = runner
        self._default_limit = default_limit
        self.streams = AgentStreams()
        #: the newest poll for work of each agent
        self._turns: dict[int, object] = {}
        #: told of each operation that waits for an agent, in a thread
        self.on_waiting: Callable[[str], None] | None = None

    # ---- enrolment and keys

    def invite(self, actor: Actor, cluster_id: int, request_id: str = "") -> Secret:
        """A one-time token for the cluster's agent; a former one ends, an enrolled agent goes on working.

        Raises :class:`InvalidInput` ``not_an_agents_cluster``.
        """
        token = TOKEN_PREFIX + secrets.token_urlsafe(32)
        with self._database.write() as session:
            cluster = agents_cluster(session, actor, cluster_id)
            agent = agent_for(session, cluster)
            agent.enrolment_hash = fingerprint(token)
            agent.enrolment_expires = clock.later(_TOKEN_SECONDS)
            audit.record(session, actor, "agent.invite", cluster.name, request_id=request_id)
        return Secret(token)

    def enrol(self, enrolment: Enrolment) -> Enrolled:
        """Exchange a one-time token for a key; the cluster's former agent is shut out.

        Raises :class:`Unauthenticated` ``invalid_enrolment``, alike for every reason.
        """
        key = KEY_PREFIX + secrets.token_urlsafe(32)
        with self._database.write() as session:
            agent = session.execute(
                sa.select(Agent).where(Agent.enrolment_hash == fingerprint(enrolment.token)).with_for_update()
            ).scalar_one_or_none()
            expires = None if agent is None else agent.enrolment_expires
            if agent is None or expires is None or expires <= clock.now():
                raise Unauthenticated(
                    "The enrolment token is unknown, used or expired.",
                    code="invalid_enrolment",
                    hint="Make a new one: iceshelves cluster enroll NAME",
                )
            cluster = session.get_one(Cluster, agent.cluster_id)
            agent.enrolment_hash = agent.enrolment_expires = None
            agent.key_hash, agent.former_key_hash, agent.revoked_on = fingerprint(key), None, None
            agent.host, agent.version = enrolment.host, enrolment.version
            # a new record on disk begins; what the former agent held can be claimed again at once
            agent.spool, agent.taken, agent.last_seen = "", 0, None
            actor = replace(system_actor(agent.tenant_id), name=f"agent:{cluster.name}"[:63])
            audit.record(session, actor, "agent.enrol", cluster.name, details={"host": enrolment.host})
            enrolled = Enrolled(cluster=cluster.name, key=key, settings=self._settings(agent, cluster))
        self._bus.publish(_topic(cluster.id))  # a poll that a former agent holds ends now
        return enrolled

    def rotate(self, actor: Actor, cluster_id: int, request_id: str = "") -> None:
        """Have the agent use a new key from its next poll on; the present one ends when it does."""
        with self._database.write() as session:
            cluster = agents_cluster(session, actor, cluster_id)
            agent = agent_of(session, cluster.id)
            if agent is None or agent.key_hash is None:
                raise Conflict(
                    f"The cluster {cluster.name} has no agent yet.",
                    code="no_agent",
                    hint=f"Enrol one: iceshelves cluster enroll {cluster.name}",
                )
            if agent.version == claims.ORIGINAL:
                raise Unsupported(
                    "The original's agent cannot be given a new key.",
                    code="original_agent_unable",
                    hint=f"Make one: iceshelves cluster enroll {cluster.name} --original",
                )
            if agent.former_key_hash is None:  # else the last rotation is still under way
                agent.former_key_hash = agent.key_hash
            audit.record(session, actor, "agent.rotate", cluster.name, request_id=request_id)
        self._bus.publish(_topic(cluster_id))

    def revoke(self, actor: Actor, cluster_id: int, request_id: str = "") -> None:
        """Shut the cluster's agent out, whoever holds its key."""
        with self._database.write() as session:
            cluster = agents_cluster(session, actor, cluster_id)
            agent = agent_of(session, cluster.id)
            if agent is not None:
                agent.revoked_on = clock.now()
                agent.enrolment_hash = agent.enrolment_expires = None
            audit.record(session, actor, "agent.revoke", cluster.name, request_id=request_id)
        self._bus.publish(_topic(cluster_id))  # a poll that is held ends now

    def identify(self, key: str) -> Known:
        """Whose key it is.  Raises :class:`Unauthenticated` ``invalid_agent_key`` or ``agent_revoked``."""
        shown = fingerprint(key)
        with self._database.read() as session:
            agent = session.execute(
                sa.select(Agent).where(sa.or_(Agent.key_hash == shown, Agent.former_key_hash == shown))
            ).scalar_one_or_none()
            agent = _let_in(agent, shown)
            return Known(agent.id, agent.cluster_id, agent.tenant_id, shown)

    # ---- polling

    async def poll(self, known: Known, poll: Poll, closing: Callable[[], bool]) -> PollAnswer:
        """Take what the agent tells, and answer as soon as there is something for it to do.

        ``closing`` says whether the server is about to stop, which ends the wait.  Raises :class:`Conflict`
        ``another_agent`` while another process uses the same key.
        """
        hold = asyncio.get_running_loop().time() + poll.hold
        turn = object()  # a later poll of this agent ends the wait of this one, whose answer nobody awaits
        if poll.wants_work:
            self._turns[known.agent_id] = turn
            self._bus.publish(_topic(known.cluster_id))
        with self._bus.subscribe(_topic(known.cluster_id)) as woken, contextlib.ExitStack() as stack:
            stack.callback(self.streams.listen(known.cluster_id, woken.wake))
            answer, ended = await in_thread(self._take, known, poll)
            await self._tell(ended)
            answer = self._with_streams(known, poll, answer)
            look = 0.0
            while not _says_something(answer) and answer.settings.long_poll and not closing():
                if self._turns.get(known.agent_id) is not turn:
                    break
                now = asyncio.get_running_loop().time()
                if now >= hold:
                    break
                if await woken.wait(min(hold - now, _LOOK_SECONDS)) or now >= look:
                    answer = await in_thread(self._look_again, known, poll, answer)
                    answer = self._with_streams(known, poll, answer)
                    look = now + _LOOK_SECONDS
            return answer

    def _take(self, known: Known, poll: Poll) -> tuple[PollAnswer, _Ended]:
        ended = _Ended([], set())
        with self._database.write() as session:
            agent = session.get_one(Agent, known.agent_id, with_for_update=True)
            cluster = session.get_one(Cluster, known.cluster_id)
            _let_in(agent, known.shown)
            key = self._next_key(agent, known) if poll.wants_work else None
            self._recognise(agent, poll)
            told, refused = claims.take(session, agent, poll.entries)
            ended.told |= told
            verdicts: dict[str, bool] = {}
            for operation_id, end in poll.ends.items():
                try:
                    verdict, job, ending = claims.end(session, self._cipher, cluster.id, operation_id, end)
                except Conflict:
                    refused.add(operation_id)
                else:
                    verdicts[operation_id] = verdict
                    if verdict:
                        ended.jobs.append((job, ending))
            running = {held: fence for held, fence in poll.running.items() if not verdicts.get(held)}
            lost = set(claims.renew(session, cluster.id, running, _lease(agent)))
            for operation_id in lost:
                running.pop(operation_id, None)
            lost |= refused.difference(running)
            if poll.wants_work:
                claims.free_lost(session, cluster.id, running)
            self._note_health(cluster, poll)
            if poll.instances is not None:
                inventory.record_all(
                    session, cluster, {seen.name: _reported(seen) for seen in poll.instances}
                )
            answer = PollAnswer(
                taken=agent.taken,
                settings=self._settings(agent, cluster),
                drop=sorted(lost),
                ended=verdicts,
                key=key,
            )
            return self._with_work(session, agent, poll, answer, running), ended

    def _look_again(self, known: Known, poll: Poll, answer: PollAnswer) -> PollAnswer:
        """What there is to do now for an agent whose poll is held."""
        with self._database.read() as session:
            running = claims.still_running(session, poll.running)  # some may have ended meanwhile
            full = len(running) >= answer.settings.limit
            waiting = poll.wants_work and not full and claims.claimable(session, known.cluster_id, running)
            agent = session.get_one(Agent, known.agent_id)
            _let_in(agent, known.shown)
            rotating = agent.former_key_hash == known.shown
            cancelled = rows.cancel_requested(session, list(running))
            cluster = session.get_one(Cluster, known.cluster_id)
            answer = replace(answer, settings=self._settings(agent, cluster))
        if not waiting and not rotating:
            return _with_cancelled(answer, poll, cancelled)
        with self._database.write() as session:
            agent = session.get_one(Agent, known.agent_id, with_for_update=True)
            _let_in(agent, known.shown)
            key = self._next_key(agent, known)
            return self._with_work(session, agent, poll, replace(answer, key=key), running)

    def _with_work(
        self,
        session: Session,
        agent: Agent,
        poll: Poll,
        answer: PollAnswer,
        running: dict[str, int],
    ) -> PollAnswer:
        work = []
        if poll.wants_work:
            room = claims.Room(answer.settings.limit, _lease(agent))
            work = claims.claim(session, self._cipher, agent.cluster_id, running, room)
        cancelled = rows.cancel_requested(session, [*running, *(claim.operation for claim in work)])
        return _with_cancelled(replace(answer, work=work), poll, cancelled)

    def _with_streams(self, known: Known, poll: Poll, answer: PollAnswer) -> PollAnswer:
        asked = set(self.streams.asked(known.cluster_id)).difference(poll.coming)
        return replace(answer, streams=sorted(asked))

    def _next_key(self, agent: Agent, known: Known) -> str | None:
        """While a rotation is under way, each answer brings a new key, until one of them is used."""
        if agent.former_key_hash is None:
            return None
        if known.shown != agent.former_key_hash:
            agent.former_key_hash = None  # the new key has arrived
            return None
        key = KEY_PREFIX + secrets.token_urlsafe(32)
        agent.key_hash = fingerprint(key)
        return key

    def _recognise(self, agent: Agent, poll: Poll) -> None:
        """Note the visit.  Two processes with one key would take each other's work away."""
        now = clock.now()
        if agent.spool != poll.spool:
            seen = agent.last_seen
            if agent.spool and seen is not None and (now - seen).total_seconds() < _lease(agent):
                raise Conflict(
                    f"Another agent uses the same key, on {agent.host or 'some host'}.",
                    code="another_agent",
                    hint="Stop one of them, or enrol each for a cluster of its own.",
                )
            agent.spool, agent.taken = poll.spool, 0
        agent.last_seen = now
        agent.host, agent.version = poll.host, poll.version

    def _note_health(self, cluster: Cluster, poll: Poll) -> None:
        if poll.health is None:
            return
        status = health.ACTIVE if poll.health.ok else health.ERROR
        found = health.Health(status, storable(poll.health.message))
        if health.apply(cluster, found, clock.now()):
            self._bus.publish(f"cluster:{cluster.id}")
        if poll.health.server is not None:
            server = dict(poll.health.server)
            cluster.is_cluster = bool(server.pop("clustered", False))
            cluster.server_info = {**server, "members": poll.health.members}

    def _settings(self, agent: Agent, cluster: Cluster) -> AgentSettings:
        sources: Any = cluster.options.get("image_servers")
        return AgentSettings(
            provider=cluster.provider,
            project=cluster.project,
            image_servers=sources,
            poll_interval=agent.poll_interval,
            long_poll=agent.long_poll,
            limit=cluster.max_operations or self._default_limit,
            options=cluster.options if cluster.provider == "fake" else {},
            pass_images=passes_images(cluster.options),
        )

    async def _tell(self, ended: _Ended) -> None:
        for job, ending in ended.jobs:
            self._runner.keeper.tell(job)
            self._bus.publish(_topic(job.cluster_id))  # there is room for another
            await self._runner.go_back(job, ending)
        if ended.told:
            self._bus.publish(*(f"operation:{operation_id}" for operation_id in ended.told))

    # ---- operations

    async def takes(self, operation_id: str) -> bool:
        """Whether an agent is to carry the operation out; if so, it is woken."""
        cluster_id = await in_thread(self._cluster_of, operation_id)
        if cluster_id is None:
            return False
        if self.on_waiting is not None:
            await in_thread(self.on_waiting, operation_id)
        await in_thread(self._note_absence, cluster_id, operation_id)
        self._bus.publish(_topic(cluster_id), f"operation:{operation_id}")
        return True

    async def look_after(self, operation_id: str) -> None:
        """End an operation that no agent will."""
        due = await self._runner.keeper.read(claims.is_due, operation_id)
        if due and await self._runner.keeper.write(claims.settle, operation_id):
            with contextlib.suppress(IceShelvesError):
                job = await self._runner.keeper.read(records.load, self._cipher, operation_id)
                self._runner.keeper.tell(job)

    def _note_absence(self, cluster_id: int, operation_id: str) -> None:
        """Have whoever watches an operation know that nobody has come for it yet, once."""
        with self._database.read() as session:
            found = health.judge_agent(health.seen_of(agent_of(session, cluster_id)), clock.now())
            if found.status == health.ACTIVE or rows.has_log(session, operation_id):
                return
        with self._database.write() as session:
            rows.add_warning(session, operation_id, f"Waiting for the cluster's agent. {found.message}")

    def _cluster_of(self, operation_id: str) -> int | None:
        with self._database.read() as session:
            return claims.is_agents(session, operation_id)

    # ---- streams

    async def open_stream(self, cluster_id: int) -> socket:
        """A stream to the hypervisor beside the cluster's agent.

        Raises :class:`Unsupported` ``agent_only_polls``, :class:`Denied` ``no_agent``, and ``Temporary``
        ``agent_away``.
        """
        await in_thread(self._check_live, cluster_id)
        return await self.streams.open(cluster_id)

    def _check_live(self, cluster_id: int) -> None:
        with self._database.read() as session:
            agent = agent_of(session, cluster_id)
            if agent is None or agent.key_hash is None or agent.revoked_on is not None:
                raise Denied(
                    "The cluster has no agent.",
                    code="no_agent",
                    hint="Enrol one: iceshelves cluster enroll NAME",
                )
            if agent.version == claims.ORIGINAL:
                raise Unsupported(
                    "The original's agent takes deployments only, so nothing can be asked of it.",
                    code="original_agent_unable",
                    hint="Run our own beside the hypervisor for live access: iceshelves agent",
                )
            if not agent.long_poll:
                raise Unsupported(
                    "The cluster's agent only polls, so nothing can be asked of it right now.",
                    code="agent_only_polls",
                    hint="Deployments work all the same; allow long-polling for live access.",
                )


def agents_cluster(session: Session, actor: Actor, cluster_id: int) -> Cluster:
    """The actor's cluster that an agent reaches.  Raises :class:`InvalidInput` ``not_an_agents_cluster``."""
    cluster = clusters.owned(session, actor, cluster_id)
    if cluster.connection_method != AGENT:
        raise InvalidInput(
            f"The cluster {cluster.name} is not reached by an agent.",
            code="not_an_agents_cluster",
            hint="Add one with: iceshelves cluster add NAME --agent",
        )
    return cluster


def agent_for(session: Session, cluster: Cluster) -> Agent:
    """The row of the cluster's agent, a new one if there is none."""
    agent = agent_of(session, cluster.id)
    if agent is None:
        agent = Agent(tenant_id=cluster.tenant_id, cluster_id=cluster.id)
        session.add(agent)
    return agent


def agent_of(session: Session, cluster_id: int) -> Agent | None:
    """The agent of a cluster, if it has one."""
    return session.execute(sa.select(Agent).where(Agent.cluster_id == cluster_id)).scalar_one_or_none()


def _let_in(agent: Agent | None, shown: str) -> Agent:
    """The agent, if the key is its present one, or the one before it until the new one was used."""
    known = [] if agent is None else [agent.key_hash or "", agent.former_key_hash or ""]
    if agent is None or not any(hmac.compare_digest(each, shown) for each in known):
        raise Unauthenticated(
            "The agent's key is unknown.",
            code="invalid_agent_key",
            hint="Enrol it again: iceshelves cluster enroll NAME",
        )
    if agent.revoked_on is not None:
        raise Unauthenticated(
            "The agent's key has been revoked.",
            code="agent_revoked",
            hint="Enrol it again if it is to come back: iceshelves cluster enroll NAME",
        )
    return agent


def _lease(agent: Agent) -> float:
    """Seconds for which a claim is the agent's: one that only polls is silent for longer."""
    return LEASE_SECONDS if agent.long_poll else max(LEASE_SECONDS, 2.0 * agent.poll_interval + 10.0)


def _with_cancelled(answer: PollAnswer, poll: Poll, cancelled: set[str]) -> PollAnswer:
    """What the agent has heard already is not told again: its next poll could not be held."""
    return replace(answer, cancel=sorted(cancelled.difference(poll.stopping)))


def _says_something(answer: PollAnswer) -> bool:
    return bool(answer.work or answer.cancel or answer.drop or answer.ended or answer.streams or answer.key)


def _reported(seen: SeenInstance) -> Instance:
    """An instance as an agent tells it; without an architecture where its member is away."""
    mark = seen.mark or {}
    installation, deployment = mark.get("installation"), mark.get("deployment")
    return Instance(
        name=seen.name,
        kind=seen.kind,
        power=seen.power,
        mark=Mark(str(installation), str(deployment), "", 0, "") if installation and deployment else None,
        architecture=seen.architecture,
        member=seen.member,
        image=seen.image,
        description=seen.description,
        readable=bool(seen.architecture),
    )


def _topic(cluster_id: int) -> str:
    return f"agent:{cluster_id}"
