"""Operations: looked at and stopped.  They are watched in :mod:`iceshelves.server.api.events`."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Path, Query
from starlette.responses import Response

from iceshelves.access.policy import Permission
from iceshelves.server import shown
from iceshelves.server.answers import Item, Listing
from iceshelves.server.api.deployments import CANCELLED, cancelled
from iceshelves.server.call import Caller
from iceshelves.server.routes import Routes
from iceshelves.server.schemas.operations import OperationItem, OperationQuery
from iceshelves.store.queries import operations as queries

OPERATIONS: Final = Listing("operations", OperationItem)
OPERATION: Final = Item(OperationItem, description="The operation")
OperationId = Annotated[str, Path(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9-]+$")]

routes = Routes("operations")


@routes.add("GET", "/api/operations", Permission.DEPLOYMENTS_READ, OPERATIONS)
def list_operations(call: Caller, wanted: Annotated[OperationQuery, Query()]) -> Response:
    """List operations, the newest first."""
    with call.control.database.read() as session:
        found = queries.page(
            session,
            call.tenant_id,
            wanted.window,
            status=wanted.status,
            deployment_id=wanted.deployment_id,
        )
        return OPERATIONS.answer_values(shown.all_operations(session, found.rows), found)


@routes.add("GET", "/api/operations/{operation}", Permission.DEPLOYMENTS_READ, OPERATION, errors=(404,))
def show_operation(call: Caller, operation: OperationId) -> Response:
    """Show one operation with its steps."""
    with call.control.database.read() as session:
        row = queries.find(session, call.tenant_id, operation)
        return OPERATION.answer(shown.all_operations(session, [row])[0])


@routes.add(
    "POST", "/api/operations/{operation}/cancel", Permission.DEPLOYMENTS_WRITE, CANCELLED, errors=(404, 409)
)
def cancel_operation(call: Caller, operation: OperationId) -> Response:
    """Stop an operation; what it has made is undone."""
    call.control.cancel(call.actor, operation, call.request_id)
    return cancelled(operation)
