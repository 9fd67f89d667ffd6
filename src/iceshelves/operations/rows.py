"""What every operation reads from the database and writes to it, each within its caller's transaction.

Every function can be called again with the same arguments: the engine repeats what was cut off.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from iceshelves.core import clock
from iceshelves.core.errors import Conflict
from iceshelves.operations.job import Ending
from iceshelves.operations.states import OPEN, OperationStatus, StepStatus
from iceshelves.store.models import LogLine, Operation, Step


def begin(session: Session, operation_id: str) -> Operation | None:
    """Mark the operation as running, with its deadline.  ``None`` if it was cancelled before it began.

    Raises :class:`Conflict` ``operation_ended``.
    """
    operation = session.get_one(Operation, operation_id, with_for_update=True)
    if operation.status not in OPEN:
        raise _ended(operation)
    if operation.status == OperationStatus.PENDING and operation.cancel_requested_on:
        return None
    if operation.status == OperationStatus.PENDING:
        operation.status = OperationStatus.RUNNING
        operation.started_at = clock.now()
        operation.deadline = clock.later(operation.timeout)
        operation.version += 1
    return operation


def is_to_be_undone(operation: Operation, ending: Ending) -> bool:
    """Whether it succeeded although somebody has asked it to stop.

    Whoever asked was told that what it made is undone, so that is what must happen before it ends.
    """
    return ending.status == OperationStatus.SUCCEEDED and operation.cancel_requested_on is not None


def end(session: Session, operation: Operation, ending: Ending) -> None:
    """Write down how the operation ended.  No step of it waits or runs any more."""
    operation.status = ending.status
    operation.error = ending.error
    operation.finished_at = clock.now()
    operation.version += 1
    for before, after in ((StepStatus.PENDING, StepStatus.SKIPPED), (StepStatus.RUNNING, StepStatus.FAILED)):
        session.execute(
            sa.update(Step)
            .where(Step.operation_id == operation.id, Step.status == before)
            .values(status=after)
        )


def kind(session: Session, operation_id: str) -> str:
    """What kind of operation it is."""
    return session.execute(sa.select(Operation.kind).where(Operation.id == operation_id)).scalar_one()


def seconds_left(session: Session, operation_id: str) -> float:
    """Until the operation's deadline; negative once it has passed."""
    deadline = session.execute(sa.select(Operation.deadline).where(Operation.id == operation_id)).scalar_one()
    return (deadline - clock.now()).total_seconds() if deadline else 0.0


def cancel_requested(session: Session, operation_ids: list[str]) -> set[str]:
    """Those of ``operation_ids`` that somebody asked to stop."""
    found = session.execute(
        sa.select(Operation.id).where(
            Operation.id.in_(operation_ids), Operation.cancel_requested_on.is_not(None)
        )
    )
    return set(found.scalars())


def begin_step(session: Session, operation_id: str, name: str) -> int:
    """Mark a step as running; returns how many guest lines the log holds already for this operation.

    Raises :class:`Conflict` ``operation_ended``: an operation that was given up does nothing more.
    """
    operation = session.get_one(Operation, operation_id, with_for_update=True)
    if operation.status not in OPEN:
        raise _ended(operation)
    step = _step(session, operation_id, name)
    step.status = StepStatus.RUNNING
    step.attempts += 1
    step.started_at = step.started_at or clock.now()
    step.message = ""
    step.progress = None
    touch(session, operation_id)
    return 0 if step.attempts == 1 else guest_lines(session, operation_id)


def has_log(session: Session, operation_id: str) -> bool:
    """Whether anything has been logged for the operation."""
    query = sa.select(LogLine.id).where(LogLine.operation_id == operation_id).limit(1)
    return session.execute(query).first() is not None


def add_warning(session: Session, operation_id: str, words: str) -> None:
    """Add a line to the log of an operation that waits, under its first step."""
    operation = session.get_one(Operation, operation_id)
    session.add(
        LogLine(
            tenant_id=operation.tenant_id,
            deployment_id=operation.deployment_id,
            operation_id=operation_id,
            step=operation.steps[0],
            source="engine",
            log_level="WARNING",
            message=words,
        )
    )


def guest_lines(session: Session, operation_id: str) -> int:
    """How many lines of the guest the log holds for this operation."""
    return session.execute(
        sa.select(sa.func.count())
        .select_from(LogLine)
        .where(LogLine.operation_id == operation_id, LogLine.source == "guest")
    ).scalar_one()


def _ended(operation: Operation) -> Conflict:
    return Conflict(f"The operation has ended already: {operation.status}.", code="operation_ended")


def end_step(session: Session, operation_id: str, name: str, status: StepStatus, message: str) -> None:
    """Mark a step as ended."""
    step = _step(session, operation_id, name)
    step.status = status
    step.message = message
    step.progress = None
    step.finished_at = clock.now()
    touch(session, operation_id)


def _step(session: Session, operation_id: str, name: str) -> Step:
    found = session.execute(
        sa.select(Step).where(Step.operation_id == operation_id, Step.name == name)
    ).scalar_one_or_none()
    if found is not None:
        return found
    last = session.execute(
        sa.select(sa.func.max(Step.position)).where(Step.operation_id == operation_id)
    ).scalar_one()
    added = Step(operation_id=operation_id, position=(last or 0) + 1, name=name, attempts=0)
    session.add(added)
    return added


def touch(session: Session, operation_id: str) -> None:
    """Count a change that whoever watches the operation can see."""
    session.execute(
        sa.update(Operation)
        .where(Operation.id == operation_id)
        .values(version=Operation.version + 1)
        .execution_options(synchronize_session=False)
    )


def open_operations(session: Session, older_than: float = 0.0) -> list[str]:
    """Every operation that has not ended and was asked for ``older_than`` seconds ago, oldest first."""
    found = session.execute(
        sa.select(Operation.id)
        .where(Operation.status.in_(OPEN), Operation.created_on <= clock.later(-older_than))
        .order_by(Operation.created_on)
    )
    return list(found.scalars())
