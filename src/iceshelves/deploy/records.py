"""What an operation reads from the database and writes to it, each within its caller's transaction.

Every function can be called again with the same arguments: the engine repeats what was cut off.
"""

from __future__ import annotations

import uuid
from typing import Any, Final

import sqlalchemy as sa
from pydantic import TypeAdapter
from sqlalchemy.orm import Session

from iceshelves.access.bootstrap import installation_id
from iceshelves.access.cipher import Cipher
from iceshelves.core import clock
from iceshelves.core.errors import Conflict
from iceshelves.deploy.job import MAKING_STEPS, Ending, Job
from iceshelves.deploy.spec import DeploymentSpec
from iceshelves.deploy.states import (
    AFTER_DEPLOY,
    OPEN,
    DeploymentStatus,
    OperationStatus,
    StepStatus,
)
from iceshelves.providers.base import Mark
from iceshelves.store.models import Cluster, Deployment, LogLine, Operation, Revision, Step

_SPEC: Final = TypeAdapter(DeploymentSpec)


def spec_place(deployment_id: int, number: int) -> str:
    """What the encryption of a revision's specification is bound to."""
    return f"revisions.spec:{deployment_id}:{number}"


def load_spec(cipher: Cipher, revision: Revision) -> DeploymentSpec:
    """The specification of a revision.  Raises ``Failed`` ``undecryptable``."""
    plain = cipher.decrypt(revision.spec, spec_place(revision.deployment_id, revision.number))
    return _SPEC.validate_json(plain)


def dump_spec(cipher: Cipher, spec: DeploymentSpec, deployment_id: int, number: int) -> bytes:
    """The specification as it is stored for a revision."""
    return cipher.encrypt(_SPEC.dump_json(spec), spec_place(deployment_id, number))


def load(session: Session, cipher: Cipher, operation_id: str) -> Job:
    """Read the operation and all that its steps need."""
    operation = session.get_one(Operation, operation_id)
    deployment = session.get_one(Deployment, operation.deployment_id)
    revision = session.get_one(Revision, operation.revision_id)
    spec = load_spec(cipher, revision)
    return Job(
        operation_id=operation_id,
        tenant_id=operation.tenant_id,
        deployment_id=deployment.id,
        cluster_id=operation.cluster_id,
        limit=session.get_one(Cluster, operation.cluster_id).max_operations,
        begun=operation.status == OperationStatus.RUNNING,
        kind=operation.kind,
        steps=tuple(operation.steps),
        revision=revision.number,
        replaces=_has_good_revision_before(session, revision),
        on_failure=operation.on_failure,
        spec=spec,
        mark=Mark(installation_id(session), deployment.uid, operation_id, revision.number, spec.egg),
    )


def _has_good_revision_before(session: Session, revision: Revision) -> bool:
    found = session.execute(
        sa.select(Revision.id)
        .where(
            Revision.deployment_id == revision.deployment_id,
            Revision.number < revision.number,
            Revision.status == DeploymentStatus.COMPLETED,
        )
        .limit(1)
    )
    return found.first() is not None


def begin(session: Session, operation_id: str) -> bool:
    """Mark the operation as running, with its deadline.  False if it was cancelled before it began."""
    operation = session.get_one(Operation, operation_id, with_for_update=True)
    if operation.status not in OPEN:
        raise _ended(operation)
    if operation.status == OperationStatus.PENDING and operation.cancel_requested_on:
        return False
    if operation.status == OperationStatus.PENDING:
        operation.status = OperationStatus.RUNNING
        operation.started_at = clock.now()
        operation.deadline = clock.later(operation.timeout)
        operation.version += 1
    deployment = session.get_one(Deployment, operation.deployment_id)
    deployment.status = DeploymentStatus.IN_PROGRESS
    deployment.started_at = deployment.started_at or clock.now()
    return True


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


def end(session: Session, operation_id: str, ending: Ending) -> bool:
    """Write down how the operation ended, and what its deployment is now.

    False, and nothing is written, if it succeeded although somebody has asked it to stop: whoever asked was
    told that what it made is undone, so that is what must happen first.
    """
    operation = session.get_one(Operation, operation_id, with_for_update=True)
    if operation.status not in OPEN:
        return True
    if ending.status == OperationStatus.SUCCEEDED and operation.cancel_requested_on:
        return False
    _end(session, operation, ending)
    return True


def give_up(session: Session, operation_id: str, error: dict[str, Any]) -> tuple[int, bool]:
    """End an operation that cannot go on as failed, unless it has ended.  What it made is left alone.

    Returns the id of its deployment, and whether it had not ended.
    """
    operation = session.get_one(Operation, operation_id, with_for_update=True)
    is_open = operation.status in OPEN
    if is_open:
        _end(session, operation, Ending(OperationStatus.FAILED, error, {}, clean=False))
    return operation.deployment_id, is_open


def _end(session: Session, operation: Operation, ending: Ending) -> None:
    operation.status = ending.status
    operation.error = ending.error
    operation.finished_at = clock.now()
    operation.version += 1
    _close_steps(session, operation.id)
    deployment = session.get_one(Deployment, operation.deployment_id)
    if operation.kind == "delete":
        _end_delete(deployment, ending)
    else:
        _end_deploy(session, deployment, operation, ending)


def _close_steps(session: Session, operation_id: str) -> None:
    """No step of an operation that has ended waits or runs."""
    for before, after in ((StepStatus.PENDING, StepStatus.SKIPPED), (StepStatus.RUNNING, StepStatus.FAILED)):
        session.execute(
            sa.update(Step)
            .where(Step.operation_id == operation_id, Step.status == before)
            .values(status=after)
        )


def _end_delete(deployment: Deployment, ending: Ending) -> None:
    deployment.error = ending.error
    if ending.status == OperationStatus.SUCCEEDED:
        deployment.status = DeploymentStatus.DELETED
        deployment.living = False
        deployment.deleted_on = deployment.deleted_on or clock.now()
        deployment.instance_info = {}
    else:
        deployment.status = DeploymentStatus.FAILED


def _end_deploy(session: Session, deployment: Deployment, operation: Operation, ending: Ending) -> None:
    status = AFTER_DEPLOY[ending.status]
    deployment.status = status
    deployment.error = ending.error
    deployment.completed_at = clock.now()
    deployment.living = not ending.clean
    if ending.clean:
        deployment.instance_info = {}
    revision = session.get_one(Revision, operation.revision_id)
    revision.status = status
    if "image" in ending.facts:
        revision.image = ending.facts["image"]["fingerprint"]
    if "instance_info" in ending.facts:
        deployment.instance_info = ending.facts["instance_info"]


def was_touched(session: Session, deployment_id: int) -> bool:
    """Whether any operation of the deployment got so far that something of it may be on the cluster."""
    found = session.execute(
        sa.select(Step.name)
        .join(Operation, Operation.id == Step.operation_id)
        .where(Operation.deployment_id == deployment_id, Step.name.in_(MAKING_STEPS), Step.attempts > 0)
        .limit(1)
    )
    return found.first() is not None


def open_operations(session: Session, older_than: float = 0.0) -> list[str]:
    """Every operation that has not ended and was asked for ``older_than`` seconds ago, oldest first."""
    found = session.execute(
        sa.select(Operation.id)
        .where(Operation.status.in_(OPEN), Operation.created_on <= clock.later(-older_than))
        .order_by(Operation.created_on)
    )
    return list(found.scalars())


def follow_up_id(operation_id: str) -> str:
    """The id of the roll-back that follows ``operation_id``: always the same, so that there is one only."""
    return str(uuid.uuid5(uuid.UUID(operation_id), "roll-back"))
