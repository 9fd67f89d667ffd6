"""Operations with their steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from iceshelves.core.errors import NotFound
from iceshelves.store.models import Build, Cluster, Deployment, Operation, Revision, Step
from iceshelves.store.queries.pages import Query, Row, Slice, Window, fetch

_SHOWN: Final = (
    Operation.id, Operation.kind, Operation.status, Operation.version, Operation.deployment_id,
    Operation.cluster_id, Operation.build_id, Operation.on_failure, Operation.timeout, Operation.deadline,
    Operation.cancel_requested_on, Operation.cancel_requested_by, Operation.error, Operation.created_by,
    Operation.created_on, Operation.started_at, Operation.finished_at, Deployment.instance_name,
    Cluster.name.label("cluster_name"), Revision.number.label("revision"), Build.appliance,
)  # fmt: skip


def page(
    session: Session, tenant_id: int, window: Window, *, status: str | None, deployment_id: int | None
) -> Slice:
    """Operations, the newest first."""
    query = _all(tenant_id)
    if status:
        query = query.where(Operation.status == status)
    if deployment_id is not None:
        query = query.where(Operation.deployment_id == deployment_id)
    return fetch(session, query.order_by(Operation.created_on.desc(), Operation.id), window)


def find(session: Session, tenant_id: int, operation_id: str) -> Row:
    """One operation.  Raises :class:`NotFound`."""
    row = session.execute(_all(tenant_id).where(Operation.id == operation_id)).one_or_none()
    if row is None:
        raise NotFound(
            f"There is no operation {operation_id!r}.",
            code="operation_not_found",
            hint="iceshelves operation list shows what is there.",
        )
    return row


def last_of(session: Session, tenant_id: int, deployment_id: int) -> Row | None:
    """The open operation of a deployment, or else its last."""
    query = (
        _all(tenant_id)
        .where(Operation.deployment_id == deployment_id)
        .order_by(Operation.status.in_(("pending", "running")).desc(), Operation.created_on.desc())
        .limit(1)
    )
    return session.execute(query).one_or_none()


def open_of(session: Session, tenant_id: int, deployment_id: int) -> str | None:
    """The id of the operation that a deployment waits for, if it does."""
    query = sa.select(Operation.id).where(
        Operation.tenant_id == tenant_id,
        Operation.deployment_id == deployment_id,
        Operation.status.in_(("pending", "running")),
    )
    found: str | None = session.execute(query).scalar_one_or_none()
    return found


def steps(session: Session, operation_ids: Sequence[str]) -> dict[str, list[Row]]:
    """The steps of each operation, in order."""
    found: dict[str, list[Row]] = {operation_id: [] for operation_id in operation_ids}
    query = (
        sa.select(
            Step.operation_id, Step.name, Step.status, Step.message, Step.progress, Step.attempts,
            Step.started_at, Step.finished_at,
        )
        .where(Step.operation_id.in_(operation_ids))
        .order_by(Step.operation_id, Step.position)
    )  # fmt: skip
    for row in session.execute(query):
        found[row.operation_id].append(row)
    return found


def _all(tenant_id: int) -> Query:
    return (
        sa.select(*_SHOWN)
        .outerjoin(Deployment, Deployment.id == Operation.deployment_id)
        .outerjoin(Cluster, Cluster.id == Operation.cluster_id)
        .outerjoin(Revision, Revision.id == Operation.revision_id)
        .outerjoin(Build, Build.id == Operation.build_id)
        .where(Operation.tenant_id == tenant_id)
    )
