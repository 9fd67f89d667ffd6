"""Builds of images."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from iceshelves.core.errors import NotFound
from iceshelves.store.models import Build, Cluster, Operation
from iceshelves.store.queries.pages import Query, Row, Slice, Window, fetch

_SHOWN: Final = (
    Build.id, Build.appliance, Build.architecture, Build.types, Build.compression, Build.status,
    Build.channel, Build.result, Build.error, Build.created_by, Build.created_on, Build.started_at,
    Build.completed_at, Build.cluster_id, Cluster.name.label("cluster_name"),
    Operation.id.label("operation_id"),
)  # fmt: skip


def page(session: Session, tenant_id: int, window: Window, appliance: str | None) -> Slice:
    """Builds, the newest first."""
    query = _all(tenant_id)
    if appliance:
        query = query.where(Build.appliance == appliance)
    return fetch(session, query.order_by(Build.id.desc()), window)


def find(session: Session, tenant_id: int, build_id: int) -> Row:
    """One build, with its lock.  Raises :class:`NotFound`."""
    query = _all(tenant_id).add_columns(Build.lock).where(Build.id == build_id)
    row = session.execute(query).one_or_none()
    if row is None:
        raise NotFound(
            f"There is no build {build_id}.",
            code="build_not_found",
            hint="iceshelves image builds lists them.",
        )
    return row


def _all(tenant_id: int) -> Query:
    return (
        sa.select(*_SHOWN)
        .join(Operation, Operation.build_id == Build.id)
        .outerjoin(Cluster, Cluster.id == Build.cluster_id)
        .where(Build.tenant_id == tenant_id)
    )
