"""What a build reads from the database and writes to it, each within its caller's transaction."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from iceshelves.access.bootstrap import installation_id
from iceshelves.core import clock
from iceshelves.factory.job import BuildJob
from iceshelves.operations import rows
from iceshelves.operations.job import Ending
from iceshelves.operations.states import OPEN, OperationStatus
from iceshelves.providers.base import Mark
from iceshelves.store.models import Build, Operation


def load(session: Session, operation_id: str) -> BuildJob:
    """Read the operation and its build."""
    operation = session.get_one(Operation, operation_id)
    build = session.get_one(Build, operation.build_id)
    return BuildJob(
        operation_id=operation_id,
        tenant_id=operation.tenant_id,
        build_id=build.id,
        begun=operation.status == OperationStatus.RUNNING,
        steps=tuple(operation.steps),
        appliance=build.appliance,
        architecture=build.architecture,
        types=tuple(build.types),  # type: ignore[arg-type]  # checked when it was asked for
        compression=build.compression,  # type: ignore[arg-type]
        recipe=build.recipe,
        lock=build.lock,
        cluster_id=build.cluster_id,
        channel=build.channel,
        timeout=operation.timeout,
        mark=Mark(installation_id(session), f"build-{build.id}", operation_id, 1, build.appliance),
    )


def begin(session: Session, operation_id: str) -> bool:
    """Mark the build as running.  False if it was cancelled before it began."""
    operation = rows.begin(session, operation_id)
    if operation is None:
        return False
    build = session.get_one(Build, operation.build_id)
    build.status = OperationStatus.RUNNING
    build.started_at = build.started_at or clock.now()
    return True


def note(session: Session, build_id: int, result: dict[str, Any], lock: str) -> None:
    """Keep what was built, and the lock that makes the same again."""
    build = session.get_one(Build, build_id)
    build.result = result
    build.lock = lock


def end(session: Session, operation_id: str, ending: Ending) -> bool:
    """Write down how the build ended; false where it succeeded but was asked to stop before that."""
    operation = session.get_one(Operation, operation_id, with_for_update=True)
    if operation.status not in OPEN:
        return True
    if rows.is_to_be_undone(operation, ending) and "published" not in ending.facts:
        return False
    _end(session, operation, ending)
    return True


def give_up(session: Session, operation_id: str, error: dict[str, Any]) -> bool:
    """End a build that cannot go on as failed; whether it had not ended."""
    operation = session.get_one(Operation, operation_id, with_for_update=True)
    is_open = operation.status in OPEN
    if is_open:
        _end(session, operation, Ending(OperationStatus.FAILED, error, {}, clean=False))
    return is_open


def _end(session: Session, operation: Operation, ending: Ending) -> None:
    rows.end(session, operation, ending)
    build = session.get_one(Build, operation.build_id)
    build.status = ending.status
    build.error = ending.error
    build.completed_at = clock.now()
    for fact in ("gate", "published"):
        if fact in ending.facts:
            build.result = {**build.result, fact: ending.facts[fact]}
