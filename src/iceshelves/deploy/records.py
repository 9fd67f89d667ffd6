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
from iceshelves.deploy.job import MAKING_STEPS, Job
from iceshelves.deploy.spec import DeploymentSpec
from iceshelves.deploy.states import AFTER_DEPLOY, DeploymentStatus
from iceshelves.operations import rows
from iceshelves.operations.job import Ending
from iceshelves.operations.states import OPEN, OperationStatus
from iceshelves.providers.base import Mark
from iceshelves.store.models import Cluster, Deployment, Operation, Revision, Step

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
        cluster_id=deployment.cluster_id,
        limit=session.get_one(Cluster, deployment.cluster_id).max_operations,
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
    operation = rows.begin(session, operation_id)
    if operation is None:
        return False
    deployment = session.get_one(Deployment, operation.deployment_id)
    deployment.status = DeploymentStatus.IN_PROGRESS
    deployment.started_at = deployment.started_at or clock.now()
    return True


def end(session: Session, operation_id: str, ending: Ending) -> bool:
    """Write down how the operation ended, and what its deployment is now.

    False, and nothing is written, if it succeeded although somebody has asked it to stop: it is undone first.
    """
    operation = session.get_one(Operation, operation_id, with_for_update=True)
    if operation.status not in OPEN:
        return True
    if rows.is_to_be_undone(operation, ending):
        return False
    _end(session, operation, ending)
    return True


def give_up(session: Session, operation_id: str, error: dict[str, Any]) -> tuple[int | None, bool]:
    """End an operation that cannot go on as failed, unless it has ended.  What it made is left alone.

    Returns the id of its deployment, and whether it had not ended.
    """
    operation = session.get_one(Operation, operation_id, with_for_update=True)
    is_open = operation.status in OPEN
    if is_open:
        _end(session, operation, Ending(OperationStatus.FAILED, error, {}, clean=False))
    return operation.deployment_id, is_open


def _end(session: Session, operation: Operation, ending: Ending) -> None:
    rows.end(session, operation, ending)
    deployment = session.get_one(Deployment, operation.deployment_id)
    if operation.kind == "delete":
        _end_delete(deployment, ending)
    else:
        _end_deploy(session, deployment, operation, ending)


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


def was_touched(session: Session, deployment_id: int | None) -> bool:
    """Whether any operation of the deployment got so far that something of it may be on the cluster."""
    found = session.execute(
        sa.select(Step.name)
        .join(Operation, Operation.id == Step.operation_id)
        .where(Operation.deployment_id == deployment_id, Step.name.in_(MAKING_STEPS), Step.attempts > 0)
        .limit(1)
    )
    return found.first() is not None


def follow_up_id(operation_id: str) -> str:
    """The id of the roll-back that follows ``operation_id``: always the same, so that there is one only."""
    return str(uuid.uuid5(uuid.UUID(operation_id), "roll-back"))
