"""Agents of the original: what they are given to do, and what they report.

The original's agent polls for deployments, makes each by one call to LXD, and tells how it went; it has no
memory, knows of no claims, and merges what it gets into the configuration of the instance.  So everything
that it needs is in that configuration, our mark included, and the claim is kept on this side alone: what was
handed out is not handed out again before its lease has passed without a word from the agent.

It works its list off one by one and polls again when it has done, so any word renews the leases of all that
it was given.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import sqlalchemy as sa
from annotated_types import MaxLen
from sqlalchemy.orm import Session

from iceshelves.access import audit
from iceshelves.access.cipher import Cipher
from iceshelves.access.policy import Actor
from iceshelves.access.tokens import fingerprint
from iceshelves.core import clock
from iceshelves.core.errors import Cancelled, Failed, IceShelvesError, NotFound, Unauthenticated, Unsupported
from iceshelves.core.secret import Secret, redact
from iceshelves.core.text import storable
from iceshelves.deploy import records
from iceshelves.deploy.agents import Known, agent_for, agent_of, agents_cluster
from iceshelves.deploy.claims import ORIGINAL, OWN
from iceshelves.deploy.job import Job
from iceshelves.deploy.messages import LEASE_SECONDS
from iceshelves.deploy.runner import Runner
from iceshelves.deploy.spec import USER_DATA_KEY
from iceshelves.operations import rows
from iceshelves.operations.job import Ending, Level
from iceshelves.operations.states import OPEN, OperationStatus, StepStatus
from iceshelves.providers.base import Image
from iceshelves.providers.incus import wire
from iceshelves.store.database import Database
from iceshelves.store.models import Agent, Cluster, Deployment, KnownInstance, LogLine, Operation

#: the alias that the original's agent starts everything from
IMAGE: Final = "ubuntu/24.04"
#: seconds for which what was handed out is the agent's, if two polls are not longer
_LEAST_LEASE: Final = 600.0
#: operations that are handed out at once, and how often one is at most
_MOST_AT_ONCE: Final = 20
_MOST_OFFERS: Final = 3
_MAX_WORDS: Final = 2000
_MOST_ADDRESSES: Final = 32
#: how the kernel calls the reach of an address, best first
_SCOPES: Final = ("global", "site", "link", "host", "local")
_HINT: Final = "Run our own beside the hypervisor, 'iceshelves agent'; iceshelves cluster enroll {} says how."


@dataclass(frozen=True, slots=True)
class Offer:
    """One deployment as the original's agent takes it.  ``config_overrides`` is the whole configuration."""

    deployment_id: int
    egg_name: str
    instance_name: str
    deployment_type: str
    cloud_init: str
    lxd_profile: str | None
    config_overrides: dict[str, str]
    target_member: str | None


@dataclass(frozen=True, slots=True)
class Report:
    """What it tells.  ``status``: in_progress, completed or failed; ``details`` name its host."""

    status: Annotated[str, MaxLen(64)]
    message: Annotated[str, MaxLen(100_000)] | None = None
    instance_info: dict[str, Any] | None = None
    error_message: Annotated[str, MaxLen(100_000)] | None = None
    details: dict[str, Any] | None = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OriginalKey:
    """What goes into the agent's environment file; ``poll_interval`` in seconds."""

    cluster_id: int
    key: Secret
    poll_interval: int


class OriginalAgents:
    """Safe from every thread."""

    def __init__(self, database: Database, cipher: Cipher, runner: Runner) -> None:
        self._database = database
        self._cipher = cipher
        self._runner = runner

    def enrol(self, actor: Actor, cluster_id: int, request_id: str = "") -> OriginalKey:
        """A key for the original's agent, good until another is made; the cluster's former agent is shut out.

        Raises :class:`InvalidInput` ``not_an_agents_cluster``.
        """
        key = secrets.token_urlsafe(32)  # 43 characters, as the original's are
        with self._database.write() as session:
            cluster = agents_cluster(session, actor, cluster_id)
            agent = agent_for(session, cluster)
            agent.enrolment_hash = agent.enrolment_expires = None
            agent.key_hash, agent.former_key_hash, agent.revoked_on = fingerprint(key), None, None
            agent.host, agent.version = "", ORIGINAL
            agent.spool, agent.taken, agent.last_seen = "", 0, None
            session.flush()
            audit.record(session, actor, "agent.enrol-original", cluster.name, request_id=request_id)
            return OriginalKey(cluster.id, Secret(key), agent.poll_interval)

    def poll(self, known: Known, cluster_id: int) -> list[Offer]:
        """Hand out what waits; each once, until its lease has passed without a word.

        Raises :class:`Unauthenticated` ``invalid_agent_key`` for a cluster that is not this agent's.
        """
        if known.cluster_id != cluster_id:
            raise _not_yours()
        ended: list[Job] = []
        offers: list[Offer] = []
        with self._database.write() as session:
            agent = session.get_one(Agent, known.agent_id, with_for_update=True)
            if _another_is_here(agent):
                return []
            agent.version, agent.last_seen = ORIGINAL, clock.now()
            cluster = session.get_one(Cluster, cluster_id)
            for operation in _waiting(session, cluster_id):
                job = records.load(session, self._cipher, operation.id)
                if self._end_if_unable(session, cluster, job):
                    ended.append(job)
                else:
                    offers.append(_hand_out(session, agent, operation, job))
        for job in ended:
            self._runner.keeper.tell(job)
        return offers

    def report(self, known: Known, deployment_id: int, report: Report) -> None:
        """Write down what the agent tells; what it tells of an operation that has ended changes nothing.

        Raises :class:`NotFound` ``deployment_not_found``, also for a deployment on another cluster.
        """
        with self._database.write() as session:
            agent = session.get_one(Agent, known.agent_id, with_for_update=True)
            deployment = session.get(Deployment, deployment_id)
            if deployment is None or deployment.cluster_id != known.cluster_id:
                raise NotFound("Deployment not found", code="deployment_not_found")
            agent.last_seen = clock.now()
            agent.host = storable(str((report.details or {}).get("agent_hostname") or agent.host))[:255]
            held = _held(session, known.cluster_id)
            meant = next((each for each in held if each.deployment_id == deployment_id), None)
            job = None if meant is None else records.load(session, self._cipher, meant.id)
            if meant is not None and job is not None:
                _write_down(session, job, meant, report)
            for operation in held:
                if operation.status in OPEN:
                    _renew(agent, operation)
        if job is not None:
            self._runner.keeper.tell(job)

    def refuse(self, operation_id: str) -> None:
        """End an operation at once that the cluster's agent will not be able to carry out."""
        with self._database.read() as session:
            cluster_id = session.get_one(Operation, operation_id).cluster_id
            agent = None if cluster_id is None else agent_of(session, cluster_id)
            if agent is None or agent.version != ORIGINAL:
                return
        with self._database.write() as session:
            operation = session.get_one(Operation, operation_id, with_for_update=True)
            if operation.status not in OPEN or operation.fence:
                return
            job = records.load(session, self._cipher, operation_id)
            cluster = session.get_one(Cluster, operation.cluster_id)
            if not self._end_if_unable(session, cluster, job):
                return
        self._runner.keeper.tell(job)

    def _end_if_unable(self, session: Session, cluster: Cluster, job: Job) -> bool:
        if not job.steps:  # there is nothing to be done on the hypervisor
            return records.end(session, job.operation_id, Ending(OperationStatus.SUCCEEDED, None, {}, True))
        unable = next(unable_to(job), None)
        if unable is None:
            return False
        error = Unsupported(
            f"The original's agent cannot {unable}.",
            code="original_agent_unable",
            hint=_HINT.format(cluster.name),
        )
        clean = job.kind == "deploy" and not records.was_touched(session, job.deployment_id)
        ending = Ending(OperationStatus.FAILED, error.to_json(), {}, clean=clean)
        return records.end(session, job.operation_id, ending)


def unable_to(job: Job) -> Iterator[str]:
    """What of ``job`` the original's agent cannot do: it creates containers, always in the same way."""
    spec = job.spec
    if job.kind != "deploy":
        yield "delete an instance"
    if job.replaces:
        yield "change an instance"
    if spec.kind != "container":
        yield "make a virtual machine"
    if spec.image != IMAGE:
        yield f"use the image {spec.image}: it starts everything from the local alias {IMAGE}"
    if spec.profiles != ("default",):
        yield "use other profiles than 'default'"
    if spec.devices:
        yield f"give an instance devices ({', '.join(spec.devices)})"
    if spec.volumes:
        yield "give an instance volumes"
    if spec.member not in (None, "auto"):
        yield f"place an instance on the member {spec.member}"


def addresses_of(given: object) -> list[str]:
    """The addresses in ``instance_info``: LXD's own objects, or strings; those of widest reach first."""
    found: list[tuple[int, str]] = []
    for entry in given[:_MOST_ADDRESSES] if isinstance(given, list) else ():
        text, scope = (entry.get("address"), entry.get("scope")) if isinstance(entry, dict) else (entry, None)
        try:
            address = ipaddress.ip_address(str(text))
        except ValueError:
            continue
        if not address.is_loopback:
            reach = str(scope) if scope else ("link" if address.is_link_local else "global")
            found.append((_SCOPES.index(reach) if reach in _SCOPES else len(_SCOPES), str(address)))
    found.sort(key=lambda each: each[0])
    return list(dict.fromkeys(text for _, text in found))


def _another_is_here(agent: Agent) -> bool:
    """Whether our own agent uses the same key at this time: the two would take turns."""
    seen = agent.last_seen
    return agent.version != ORIGINAL and seen is not None and seen > clock.later(-LEASE_SECONDS)


def _waiting(session: Session, cluster_id: int) -> Sequence[Operation]:
    """What is nobody's at the moment, oldest first; what was cancelled before it began is ended elsewhere."""
    now = clock.now()
    return (
        session.execute(
            sa.select(Operation)
            .where(
                Operation.cluster_id == cluster_id,
                Operation.status.in_(OPEN),
                Operation.cancel_requested_on.is_(None),
                Operation.fence < _MOST_OFFERS,
                Operation.protocol != OWN,  # what our own agent has begun it alone can go on with
                sa.or_(Operation.lease_until.is_(None), Operation.lease_until <= now),
            )
            .order_by(Operation.created_on)
            .limit(_MOST_AT_ONCE)
            .with_for_update()
        )
        .scalars()
        .all()
    )


def _held(session: Session, cluster_id: int) -> Sequence[Operation]:
    """What the agent was given and has not ended."""
    return (
        session.execute(
            sa.select(Operation)
            .where(
                Operation.cluster_id == cluster_id,
                Operation.status.in_(OPEN),
                Operation.protocol == ORIGINAL,
                Operation.fence > 0,
            )
            .order_by(Operation.id)
            .with_for_update()
        )
        .scalars()
        .all()
    )


def _hand_out(session: Session, agent: Agent, operation: Operation, job: Job) -> Offer:
    again = operation.fence > 0
    operation.fence += 1
    operation.protocol = ORIGINAL
    _renew(agent, operation)
    rows.touch(session, operation.id)
    words = "Handed to the original's agent" + (" again: nothing was heard of it" if again else "")
    _log(session, job, "WARNING" if again else "INFO", words)
    deployment = session.get_one(Deployment, job.deployment_id)
    spec = job.spec
    instance = spec.to_instance(Image("", spec.image, spec.kind), job.mark)
    return Offer(
        deployment_id=deployment.id,
        egg_name=spec.egg.partition("@")[0],
        instance_name=spec.instance,
        deployment_type=deployment.deployment_type,
        cloud_init=spec.config.get(USER_DATA_KEY, ""),
        lxd_profile=None,  # what was in it is in the configuration
        config_overrides=wire.config_of(instance, wire.BUILT),
        target_member=None,
    )


def _renew(agent: Agent, operation: Operation) -> None:
    """Nobody can hurry the agent, so the deadline lies beyond the lease and the polls that follow it."""
    lease = max(2.0 * agent.poll_interval, _LEAST_LEASE)
    operation.lease_until = clock.later(lease)
    deadline = clock.later(lease + 2.0 * agent.poll_interval)
    operation.deadline = max(operation.deadline or deadline, deadline)


def _write_down(session: Session, job: Job, operation: Operation, report: Report) -> None:
    said = _plain(job, report.message)
    if report.status == "in_progress":
        _begin(session, operation)
        _log(session, job, "INFO", said or "The original's agent has begun")
    elif report.status == "completed":
        if operation.started_at is None:
            _begin(session, operation)
        _log(session, job, "INFO", said or "The original's agent has finished")
        _complete(session, job, report)
    elif report.status == "failed":
        if operation.started_at is None:
            _begin(session, operation)
        _fail(session, job, operation, report)
    else:  # the original keeps whatever it is told
        _log(session, job, "INFO", f"{_plain(job, report.status)}: {said}")


def _begin(session: Session, operation: Operation) -> None:
    """It has begun, even where somebody asked it to stop: this agent cannot be told."""
    records.begin(session, operation.id)
    rows.begin_step(session, operation.id, "create")


def _complete(session: Session, job: Job, report: Report) -> None:
    for step in ("create", "start", "ready"):
        rows.end_step(session, job.operation_id, step, StepStatus.DONE, "")
    _log(
        session,
        job,
        "WARNING",
        "The original's agent does not wait for cloud-init, so whether that has finished is not known",
    )
    if job.spec.root_size is not None:
        _log(session, job, "WARNING", "The original's agent sets no disk sizes: that of the profile was kept")
    if job.spec.checks:
        _log(session, job, "WARNING", "The original's agent runs no checks: those of the egg were left out")
    facts = {"instance_info": _info(job, report.instance_info or {})}
    if records.end(session, job.operation_id, Ending(OperationStatus.SUCCEEDED, None, facts, clean=False)):
        return
    error = Cancelled(
        "It was asked to stop, but the original's agent cannot be told; the instance is there.",
        code="cancelled_too_late",
        hint="Delete the instance by hand, or have 'iceshelves agent' there and delete the deployment.",
    )
    records.end(
        session, job.operation_id, Ending(OperationStatus.CANCELLED, error.to_json(), facts, clean=False)
    )


def _fail(session: Session, job: Job, operation: Operation, report: Report) -> None:
    words = _plain(job, report.error_message) or _plain(job, report.message)
    taken = "already exists" in words.lower()
    if taken and _is_ours(session, job):
        _log(session, job, "INFO", "The instance was there already, made by an earlier try of this operation")
        _complete(session, job, report)
        return
    error = _failure(job, operation, words, taken=taken)
    rows.end_step(session, job.operation_id, "create", StepStatus.FAILED, error.message)
    _log(session, job, "ERROR", error.message)
    records.end(session, job.operation_id, Ending(OperationStatus.FAILED, error.to_json(), {}, clean=False))


def _failure(job: Job, operation: Operation, words: str, *, taken: bool) -> IceShelvesError:
    if taken and operation.fence > 1:
        return Failed(
            f"There is an instance {job.spec.instance!r} already; what became of the first try was not told.",
            code="instance_uncertain",
            hint=f"It is this deployment's if 'lxc config get {job.spec.instance} user.iceshelves.operation'"
            f" says {job.operation_id}; with 'iceshelves agent' there, a retry finds that out by itself.",
            details={"agent": words},
        )
    if taken:
        return Failed(
            f"There is an instance {job.spec.instance!r} already.",
            code="instance_exists",
            hint="Choose another name; what is not ours is never touched.",
            details={"agent": words},
        )
    return Failed(
        f"The original's agent failed: {words or 'it does not say why.'}",
        code="original_agent_failed",
        hint="Its own log on the hypervisor says more.",
    )


def _is_ours(session: Session, job: Job) -> bool:
    """Whether a look at the hypervisor since the operation was asked for found our mark on the instance."""
    found = session.get(KnownInstance, (job.cluster_id, job.spec.instance))
    asked = session.get_one(Operation, job.operation_id).created_on
    return (
        found is not None
        and found.deployment_uid == job.mark.deployment
        and found.power == "running"
        and found.seen_on >= asked
    )


def _info(job: Job, told: dict[str, Any]) -> dict[str, Any]:
    addresses = addresses_of(told.get("ipv4"))
    return {
        "name": job.spec.instance,
        "status": storable(str(told.get("status") or "unknown")).lower()[:32],
        "architecture": storable(str(told.get("architecture") or ""))[:32],
        "ipv4": [address for address in addresses if ":" not in address],
        "ipv6": [address for address in addresses if ":" in address],
        "image": "",
        "member": None,
    }


def _plain(job: Job, text: str | None) -> str:
    """One line of what the agent says, without the secrets of the deployment."""
    return storable(" ".join(redact(text or "", list(job.spec.secrets)).split())[:_MAX_WORDS])


def _log(session: Session, job: Job, level: Level, message: str) -> None:
    session.add(
        LogLine(
            tenant_id=job.tenant_id,
            deployment_id=job.deployment_id,
            operation_id=job.operation_id,
            step="create",
            source="engine",
            log_level=level,
            message=message,
            timestamp=clock.now(),
        )
    )


def _not_yours() -> Unauthenticated:
    return Unauthenticated("Invalid agent key", code="invalid_agent_key")
