"""Operations that an agent carries out: claimed under a lease with a fencing number, reported, overdue.

An operation of an agent's cluster waits in its row until the agent claims it.  Each claim raises the row's
``fence``; reports under an older one are refused, so that an agent which lost its claim cannot write any
more.  All functions work within their caller's transaction.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from iceshelves.access.cipher import Cipher
from iceshelves.clusters.reaching import AGENT
from iceshelves.core import clock
from iceshelves.core.errors import Cancelled, Conflict, IceShelvesError, TimedOut
from iceshelves.core.text import storable
from iceshelves.deploy import records
from iceshelves.deploy.job import Job
from iceshelves.deploy.messages import Claim, End, Entry
from iceshelves.deploy.spec import Wishes
from iceshelves.operations import rows
from iceshelves.operations.job import Ending
from iceshelves.operations.states import OPEN, OperationStatus, StepStatus
from iceshelves.store.models import Agent, Cluster, LogLine, Operation, Step

#: seconds beyond its deadline that an agent which is away has for telling how its work ended
_GRACE: Final = 120.0
#: seconds beyond it after which even one that still calls has had its time, cleaning up included
_LAST: Final = 900.0
#: the protocols over which operations are claimed: our agent's, and that of the original's
OWN: Final = "own"
ORIGINAL: Final = "original"


def is_agents(session: Session, operation_id: str) -> int | None:
    """The id of the operation's cluster, if an agent is to carry it out."""
    found: int | None = session.execute(
        sa.select(Operation.cluster_id)
        .join(Cluster, Cluster.id == Operation.cluster_id)
        .where(Operation.id == operation_id, Cluster.connection_method == AGENT)
    ).scalar_one_or_none()
    return found


def renew(session: Session, cluster_id: int, running: Mapping[str, int], seconds: float) -> list[str]:
    """Lease what the agent holds for ``seconds`` more; returns what it holds no more."""
    lost: list[str] = []
    for operation_id, fence in running.items():
        operation = session.get(Operation, operation_id, with_for_update=True)
        if (
            operation is None
            or operation.cluster_id != cluster_id
            or operation.fence != fence
            or operation.status not in OPEN
        ):
            lost.append(operation_id)
        else:
            operation.lease_until = clock.later(seconds)
    return lost


def free_lost(session: Session, cluster_id: int, running: Mapping[str, int]) -> None:
    """Let go of what was claimed but is not among ``running``, as an agent says that asks for work.

    The answer with it never arrived, or it was lost with the agent's disk.
    """
    session.execute(
        sa.update(Operation)
        .where(
            Operation.cluster_id == cluster_id,
            Operation.status.in_(OPEN),
            Operation.fence > 0,
            Operation.protocol == OWN,
            Operation.id.not_in(list(running)),
        )
        .values(lease_until=None)
        .execution_options(synchronize_session=False)
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Room:
    """How much an agent may take: at most ``limit`` operations at once, leased for ``seconds``."""

    limit: int
    seconds: float


def claim(
    session: Session, cipher: Cipher, cluster_id: int, running: Mapping[str, int], room: Room
) -> list[Claim]:
    """Claim what waits and is nobody's, oldest first."""
    if len(running) >= room.limit:
        return []
    waiting = session.execute(
        sa.select(Operation)
        .where(*_waiting(cluster_id, list(running)))
        .order_by(Operation.created_on)
        .limit(room.limit - len(running))
        .with_for_update()
    ).scalars()
    claimed: list[Claim] = []
    for operation in list(waiting):
        try:
            with session.begin_nested():
                claimed.append(_claim(session, cipher, operation, room.seconds))
        except IceShelvesError as error:  # such as a specification whose key is lost: the others go on
            records.give_up(session, operation.id, error.to_json())
    return claimed


def _claim(session: Session, cipher: Cipher, operation: Operation, seconds: float) -> Claim:
    before = operation.fence
    operation.fence += 1
    operation.protocol = OWN
    operation.lease_until = clock.later(seconds)
    records.begin(session, operation.id)
    job = records.load(session, cipher, operation.id)
    return Claim(
        operation=operation.id,
        fence=operation.fence,
        kind=job.kind,
        steps=list(job.steps),
        revision=job.revision,
        replaces=job.replaces,
        on_failure=job.on_failure,
        seconds_left=rows.seconds_left(session, operation.id),
        # whoever held it before may have made something without having told it
        touched=before > 0 or records.was_touched(session, job.deployment_id),
        guest_lines=rows.guest_lines(session, operation.id),
        mark=dataclasses.asdict(job.mark),
        # what whoever deploys wished for is in it already, rendered
        spec=dataclasses.asdict(dataclasses.replace(job.spec, wishes=Wishes())),
    )


def still_running(session: Session, running: Mapping[str, int]) -> dict[str, int]:
    """What of ``running`` has not ended."""
    found = session.execute(
        sa.select(Operation.id).where(Operation.id.in_(list(running)), Operation.status.in_(OPEN))
    )
    return {operation_id: running[operation_id] for operation_id in found.scalars()}


def claimable(session: Session, cluster_id: int, running: Mapping[str, int]) -> bool:
    """Whether something waits for the agent."""
    return (
        session.execute(sa.select(Operation.id).where(*_waiting(cluster_id, list(running))).limit(1)).first()
        is not None
    )


def _waiting(cluster_id: int, running: Sequence[str]) -> tuple[sa.ColumnElement[bool], ...]:
    """What was cancelled before it began is ended by :func:`settle`; an agent has nothing to do with it."""
    begun = sa.or_(
        Operation.status == OperationStatus.RUNNING,
        sa.and_(Operation.status == OperationStatus.PENDING, Operation.cancel_requested_on.is_(None)),
    )
    free = sa.or_(Operation.fence == 0, Operation.lease_until.is_(None), Operation.lease_until <= clock.now())
    return (Operation.cluster_id == cluster_id, begun, Operation.id.not_in(running), free)


def take(session: Session, agent: Agent, entries: Sequence[Entry]) -> tuple[set[str], set[str]]:
    """Write down what the agent reports, once; what has a number that was seen is passed over.

    Returns the operations that were written about, and those whose reports are refused: an agent that lost
    its claim, or another's operation.
    """
    told: set[str] = set()
    refused: set[str] = set()
    held: dict[str, Operation | None] = {}
    lines: list[dict[str, Any]] = []
    for entry in entries:
        if entry.number <= agent.taken:
            continue
        agent.taken = entry.number
        if entry.operation not in held:
            held[entry.operation] = _held(session, agent, entry)
        operation = held[entry.operation]
        if operation is None or operation.fence != entry.fence:
            refused.add(entry.operation)
            continue
        told.add(entry.operation)
        if entry.kind == "log":
            lines.append(_line(operation, entry))
        else:
            _note(session, operation, entry)
    if lines:
        session.execute(sa.insert(LogLine), lines)
    return told, refused


def _held(session: Session, agent: Agent, entry: Entry) -> Operation | None:
    operation = session.get(Operation, entry.operation, with_for_update=True)
    ours = operation is not None and operation.cluster_id == agent.cluster_id and operation.status in OPEN
    return operation if ours else None


def _note(session: Session, operation: Operation, entry: Entry) -> None:
    text = storable(entry.text)
    if entry.kind == "step":
        rows.begin_step(session, operation.id, entry.step)
    elif entry.kind == "step-end":
        rows.end_step(session, operation.id, entry.step, StepStatus(entry.status or "failed"), text)
    else:
        session.execute(
            sa.update(Step)
            .where(Step.operation_id == operation.id, Step.name == entry.step)
            .values(progress=entry.fraction, message=text[:500])
        )
        rows.touch(session, operation.id)


def _line(operation: Operation, entry: Entry) -> dict[str, Any]:
    return {
        "tenant_id": operation.tenant_id,
        "deployment_id": operation.deployment_id,
        "operation_id": operation.id,
        "step": entry.step,
        "source": entry.source,
        "log_level": entry.level,
        "message": storable(entry.text),
        "timestamp": _moment(entry.at),
    }


def _moment(text: str) -> datetime:
    """The agent's clock may be wrong; a line of the future would stay on top for ever."""
    try:
        return min(clock.from_text(text), clock.now())
    except ValueError:
        return clock.now()


def end(
    session: Session, cipher: Cipher, cluster_id: int, operation_id: str, end: End
) -> tuple[bool, Job, Ending]:
    """Write down how the agent's work ended; asked again, the same answer.

    The first value is false where it succeeded although somebody asked it to stop.  Raises
    :class:`Conflict` ``stale_claim`` under a former fence, or for what is not the agent's.
    """
    operation = session.get(Operation, operation_id, with_for_update=True)
    if operation is None or operation.cluster_id != cluster_id or operation.fence != end.fence:
        raise Conflict("The operation is not this agent's any more.", code="stale_claim")
    ending = Ending(end.status, end.error, end.facts, end.clean)
    ended = records.end(session, operation_id, ending)
    return ended, records.load(session, cipher, operation_id), ending


def is_due(session: Session, operation_id: str) -> bool:
    """Whether :func:`settle` would end the operation."""
    operation = session.get(Operation, operation_id)
    return operation is not None and _settlement(session, operation) is not None


def settle(session: Session, operation_id: str) -> bool:
    """End an operation that no agent has to see any more; whether it was ended.

    That is one which was cancelled before any agent claimed it, and one whose agent has been away for too
    long.  What it may have made is left for a look.
    """
    operation = session.get_one(Operation, operation_id, with_for_update=True)
    ending = _settlement(session, operation)
    return ending is not None and records.end(session, operation_id, ending)


def _settlement(session: Session, operation: Operation) -> Ending | None:
    if operation.status not in OPEN or operation.cluster_id is None:  # or no agent's matter at all
        return None
    untouched = operation.fence == 0 and not records.was_touched(session, operation.deployment_id)
    clean = untouched and operation.kind == "deploy"
    if operation.cancel_requested_on is not None and operation.fence == 0:
        error = Cancelled("Cancelled before it began.").to_json()
        return Ending(OperationStatus.CANCELLED, error, {}, clean)
    now = clock.now()
    due = operation.deadline or operation.created_on + timedelta(seconds=operation.timeout)
    overdue = (now - due).total_seconds()
    leased = operation.lease_until is not None and operation.lease_until > now
    if overdue < (_LAST if leased else _GRACE):
        return None
    return Ending(OperationStatus.TIMEOUT, _away(operation).to_json(), {}, clean)


def _away(operation: Operation) -> TimedOut:
    begun = "went away while it worked on this" if operation.fence else "did not come for this"
    return TimedOut(
        f"The cluster's agent {begun}, and the deadline has passed.",
        code="agent_away",
        hint="See whether 'iceshelves agent' runs beside the hypervisor, then retry the deployment.",
    )
