"""What users ask of operations whatever they are about: to be done, and to stop."""

from __future__ import annotations

from sqlalchemy.orm import Session

from iceshelves.access import audit
from iceshelves.access.policy import Actor, Permission
from iceshelves.core import clock
from iceshelves.core.errors import Conflict, NotFound
from iceshelves.operations.states import OPEN
from iceshelves.store.models import Operation, Step


def add(session: Session, operation: Operation) -> Operation:
    """Write a new operation down, with its steps."""
    session.add(operation)
    session.flush()
    session.add_all(
        Step(operation_id=operation.id, position=position, name=name, attempts=0)
        for position, name in enumerate(operation.steps, start=1)
    )
    return operation


def cancel(session: Session, actor: Actor, operation_id: str, request_id: str) -> None:
    """Ask an operation to stop.  Raises :class:`NotFound`, and :class:`Conflict` if it has ended."""
    operation = session.get(Operation, operation_id, with_for_update=True)
    if operation is None or operation.tenant_id != actor.tenant_id:
        raise NotFound("There is no such operation.", code="operation_not_found")
    if operation.build_id is not None:
        actor.need(Permission.IMAGES_WRITE)
    if operation.status not in OPEN:
        raise Conflict(f"The operation has ended already: {operation.status}.", code="operation_ended")
    if operation.kind == "delete":
        raise Conflict("A deletion cannot be cancelled.", code="not_cancellable")
    if operation.cancel_requested_on is None:
        operation.cancel_requested_on = clock.now()
        operation.cancel_requested_by = actor.name
        operation.version += 1
        audit.record(session, actor, "operation.cancel", operation_id, request_id=request_id)
