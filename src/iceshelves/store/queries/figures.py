"""What the metrics count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from iceshelves.store.models import Cluster, Deployment, Egg, Operation
from iceshelves.store.queries.pages import Row


@dataclass(frozen=True, slots=True)
class Counts:
    """How many of each a tenant has; ``active`` deployments are those with work under way."""

    eggs: int
    clusters: int
    active: int


def counts(session: Session, tenant_id: int) -> Counts:
    """Read all three at once."""
    number = sa.func.count()
    row = session.execute(
        sa.select(
            sa.select(number).where(Egg.tenant_id == tenant_id, Egg.is_active).scalar_subquery(),
            sa.select(number).where(Cluster.tenant_id == tenant_id, Cluster.is_active).scalar_subquery(),
            sa.select(number)
            .where(Operation.tenant_id == tenant_id, Operation.status.in_(("pending", "running")))
            .scalar_subquery(),
        )
    ).one()
    return Counts(row[0], row[1], row[2])


def finished_since(session: Session, tenant_id: int, moment: datetime | None) -> Sequence[Row]:
    """Operations that ended at ``moment`` or later, with what they were about."""
    query = (
        sa.select(
            Operation.id, Operation.kind, Operation.status, Operation.started_at, Operation.finished_at,
            Deployment.deployment_type,
        )
        .join(Deployment, Deployment.id == Operation.deployment_id)
        .where(Operation.tenant_id == tenant_id, Operation.finished_at.is_not(None))
        .order_by(Operation.finished_at)
    )  # fmt: skip
    if moment is not None:
        query = query.where(Operation.finished_at >= moment)
    return session.execute(query).all()
