"""Deployments: made, changed and looked at."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Query
from starlette.responses import Response

from iceshelves.access.policy import Permission
from iceshelves.core.errors import Conflict
from iceshelves.deploy.requests import Accepted, DeployRequest, UpdateRequest
from iceshelves.server import shown
from iceshelves.server.answers import Item, Listing
from iceshelves.server.call import Call, Caller
from iceshelves.server.routes import BASE, Routes
from iceshelves.server.schemas.common import AcceptedWork, Paging, PathId
from iceshelves.server.schemas.deployments import (
    DeployBody,
    DeploymentDetail,
    DeploymentItem,
    DeploymentQuery,
    RevisionItem,
    RollbackBody,
    UpdateBody,
)
from iceshelves.server.schemas.operations import CancelledWork, LogItem, LogQuery
from iceshelves.store.queries import clusters, deployments, eggs, logs, operations

DEPLOYMENTS: Final = Listing("deployments", DeploymentItem)
DEPLOYMENT: Final = Item(DeploymentDetail, description="The deployment")
REVISIONS: Final = Listing("revisions", RevisionItem)
LOGS: Final = Listing("logs", LogItem)
ACCEPTED: Final = Item(AcceptedWork, 202, "Written down; the work goes on at Location")
CANCELLED: Final = Item(CancelledWork, 202, "Asked to stop; watch it end at Location")
_SHOWN_LINES: Final = 100

routes = Routes("deployments")


@routes.add(
    "POST", "/api/deploy", Permission.DEPLOYMENTS_WRITE, ACCEPTED, errors=(404, 409), takes_forms=True
)
def deploy(call: Caller, body: DeployBody) -> Response:
    """Deploy an egg under a name."""
    return _deploy(call, body)


@routes.add("POST", "/deploy", Permission.DEPLOYMENTS_WRITE, ACCEPTED, errors=(404, 409), takes_forms=True)
def deploy_form(call: Caller, body: DeployBody) -> Response:
    """Deploy an egg under a name (the original's form)."""
    return _deploy(call, body)


@routes.add("GET", "/api/deployments", Permission.DEPLOYMENTS_READ, DEPLOYMENTS)
def list_deployments(call: Caller, wanted: Annotated[DeploymentQuery, Query()]) -> Response:
    """List the deployments."""
    chosen = deployments.DeploymentFilter(
        status=wanted.status,
        cluster_id=wanted.cluster_id,
        cluster=wanted.cluster,
        egg_id=wanted.egg_id,
        name=wanted.name,
        search=wanted.search,
        deleted=wanted.deleted,
    )
    with call.control.database.read() as session:
        found = deployments.page(session, call.tenant_id, chosen, wanted.window)
    return DEPLOYMENTS.answer_values([shown.deployment(row) for row in found.rows], found)


@routes.add("GET", "/api/deployments/{deployment}", Permission.DEPLOYMENTS_READ, DEPLOYMENT, errors=(404,))
def show_deployment(call: Caller, deployment: PathId) -> Response:
    """Show one deployment."""
    with call.control.database.read() as session:
        row = deployments.find(session, call.tenant_id, deployment)
        last = operations.last_of(session, call.tenant_id, deployment)
        operation = shown.all_operations(session, [last])[0] if last else None
        lines = logs.last(session, call.tenant_id, deployment, _SHOWN_LINES)
    return DEPLOYMENT.answer(shown.deployment_detail(row, operation, lines))


@routes.add("GET", "/api/deployments/{deployment}/logs", Permission.DEPLOYMENTS_READ, LOGS, errors=(404,))
def list_logs(call: Caller, deployment: PathId, wanted: Annotated[LogQuery, Query()]) -> Response:
    """List the log lines of a deployment, the oldest first."""
    chosen = logs.LogFilter(
        deployment_id=deployment,
        operation_id=wanted.operation_id,
        source=wanted.source,
        level=wanted.level,
        after=wanted.after,
    )
    with call.control.database.read() as session:
        deployments.need(session, call.tenant_id, deployment)
        return LOGS.answer(logs.page(session, call.tenant_id, chosen, wanted.window))


@routes.add(
    "GET", "/api/deployments/{deployment}/revisions", Permission.DEPLOYMENTS_READ, REVISIONS, errors=(404,)
)
def list_revisions(call: Caller, deployment: PathId, wanted: Annotated[Paging, Query()]) -> Response:
    """List what a deployment has been, the newest first."""
    with call.control.database.read() as session:
        found = deployments.revisions(session, call.tenant_id, deployment, wanted.window)
    return REVISIONS.answer_values([shown.revision(row) for row in found.rows], found)


@routes.add(
    "POST", "/api/deployments/{deployment}/update", Permission.DEPLOYMENTS_WRITE, ACCEPTED, errors=(404, 409)
)
def update_deployment(call: Caller, deployment: PathId, body: UpdateBody) -> Response:
    """Make a new revision in place."""
    egg_id = None
    if body.egg is not None:
        with call.control.database.read() as session:
            egg_id = eggs.id_of(session, call.tenant_id, body.egg)
    wanted = UpdateRequest(egg_id=egg_id, **body.model_dump(exclude={"egg"}))
    accepted = call.control.deployments.update(call.actor, deployment, wanted, call.request_id)
    return _accepted(accepted, "A new revision is on its way.")


@routes.add(
    "POST",
    "/api/deployments/{deployment}/rollback",
    Permission.DEPLOYMENTS_WRITE,
    ACCEPTED,
    errors=(404, 409),
)
def roll_back_deployment(call: Caller, deployment: PathId, body: RollbackBody | None = None) -> Response:
    """Go back to what a deployment was before."""
    number = body.revision if body else None
    accepted = call.control.deployments.roll_back(call.actor, deployment, number, call.request_id)
    return _accepted(accepted, "The roll-back is on its way.")


@routes.add(
    "POST", "/api/deployments/{deployment}/retry", Permission.DEPLOYMENTS_WRITE, ACCEPTED, errors=(404, 409)
)
def retry_deployment(call: Caller, deployment: PathId) -> Response:
    """Do again what failed, was cancelled or timed out."""
    return _accepted(call.control.deployments.retry(call.actor, deployment, call.request_id), "Trying again.")


@routes.add(
    "POST", "/api/deployments/{deployment}/cancel", Permission.DEPLOYMENTS_WRITE, CANCELLED, errors=(404, 409)
)
def cancel_deployment(call: Caller, deployment: PathId) -> Response:
    """Stop what is under way for a deployment."""
    with call.control.database.read() as session:
        deployments.need(session, call.tenant_id, deployment)
        operation_id = operations.open_of(session, call.tenant_id, deployment)
    if operation_id is None:
        raise Conflict(
            "Nothing is under way for this deployment.",
            code="nothing_to_cancel",
            hint="To undo what is done, delete it or roll it back.",
        )
    call.control.cancel(call.actor, operation_id, call.request_id)
    return cancelled(operation_id)


@routes.add(
    "DELETE", "/api/deployments/{deployment}", Permission.DEPLOYMENTS_WRITE, ACCEPTED, errors=(404, 409)
)
def delete_deployment(call: Caller, deployment: PathId) -> Response:
    """Delete a deployment's instance and volumes."""
    return _delete(call, deployment)


@routes.add(
    "DELETE",
    "/api/deployments/{deployment}/cleanup",
    Permission.DEPLOYMENTS_WRITE,
    ACCEPTED,
    errors=(404, 409),
)
def clean_up_deployment(call: Caller, deployment: PathId) -> Response:
    """Delete a deployment's instance and volumes (the original's address)."""
    return _delete(call, deployment)


def cancelled(operation_id: str) -> Response:
    """The answer to a request to stop."""
    return CANCELLED.answer(
        CancelledWork(operation_id=operation_id, message="It was asked to stop; what it made is undone."),
        headers=_location(operation_id),
    )


def _deploy(call: Call, body: DeployBody) -> Response:
    with call.control.database.read() as session:
        egg_id = body.egg_id or eggs.id_of(session, call.tenant_id, body.egg or "")
        cluster_id = body.cluster_id or body.target_id
        cluster_id = cluster_id or clusters.id_of(session, call.tenant_id, body.cluster or "")
    named = {"egg", "egg_id", "cluster", "cluster_id", "target_id"}
    wanted = DeployRequest(egg_id=egg_id, cluster_id=cluster_id, **body.model_dump(exclude=named))
    accepted = call.control.deployments.create(call.actor, wanted, call.request_id)
    return _accepted(accepted, f"{accepted.instance_name} is on its way.")


def _delete(call: Call, deployment: int) -> Response:
    accepted = call.control.deployments.delete(call.actor, deployment, call.request_id)
    return _accepted(accepted, "The deletion is on its way.")


def _accepted(work: Accepted, message: str) -> Response:
    return ACCEPTED.answer(
        AcceptedWork(
            deployment_id=work.deployment_id,
            operation_id=work.operation_id,
            instance_name=work.instance_name,
            message=message,
        ),
        headers=_location(work.operation_id),
    )


def _location(operation_id: str) -> dict[str, str]:
    return {"Location": f"{BASE}/api/operations/{operation_id}"}
