"""Deployments and their revisions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from iceshelves.core.errors import NotFound
from iceshelves.store.models import Cluster, Deployment, Egg, Revision
from iceshelves.store.queries.pages import Query, Row, Slice, Window, fetch, mentions

_LISTED: Final = (
    Deployment.id, Deployment.egg_id, Deployment.cluster_id, Deployment.instance_name,
    Deployment.target_member, Deployment.status, Deployment.deployment_type, Deployment.revision,
    Deployment.started_at, Deployment.completed_at, Deployment.deployed_by, Deployment.created_on,
    Deployment.updated_on, Deployment.deleted_on, Deployment.instance_info, Deployment.error,
    Egg.name.label("egg_name"), Egg.version.label("egg_version"), Cluster.name.label("cluster_name"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class DeploymentFilter:
    """What to list; an empty field does not filter.  ``deleted`` adds those that are no more."""

    status: str | None = None
    cluster_id: int | None = None
    cluster: str | None = None
    egg_id: int | None = None
    name: str | None = None
    search: str | None = None
    deleted: bool = False


def page(session: Session, tenant_id: int, wanted: DeploymentFilter, window: Window) -> Slice:
    """Deployments, the newest first."""
    query = _all(tenant_id)
    if not wanted.deleted:
        query = query.where(Deployment.deleted_on.is_(None))
    if wanted.status:
        query = query.where(Deployment.status == wanted.status)
    if wanted.cluster_id is not None:
        query = query.where(Deployment.cluster_id == wanted.cluster_id)
    if wanted.cluster:
        query = query.where(Cluster.name == wanted.cluster)
    if wanted.egg_id is not None:
        query = query.where(Deployment.egg_id == wanted.egg_id)
    if wanted.name:
        query = query.where(Deployment.instance_name == wanted.name)
    if wanted.search:
        query = query.where(mentions(wanted.search, Deployment.instance_name, Egg.name, Cluster.name))
    return fetch(session, query.order_by(Deployment.id.desc()), window)


def find(session: Session, tenant_id: int, deployment_id: int) -> Row:
    """One deployment, also a deleted one.  Raises :class:`NotFound`."""
    row = session.execute(_all(tenant_id).where(Deployment.id == deployment_id)).one_or_none()
    if row is None:
        raise missing(deployment_id)
    return row


def need(session: Session, tenant_id: int, deployment_id: int) -> None:
    """Raise :class:`NotFound` unless the tenant has that deployment."""
    query = sa.select(Deployment.id).where(Deployment.id == deployment_id, Deployment.tenant_id == tenant_id)
    if session.execute(query).one_or_none() is None:
        raise missing(deployment_id)


def revisions(session: Session, tenant_id: int, deployment_id: int, window: Window) -> Slice:
    """The revisions of one deployment, the newest first.  Raises :class:`NotFound`."""
    need(session, tenant_id, deployment_id)
    query = (
        sa.select(
            Revision.number, Revision.egg_id, Egg.name.label("egg_name"), Egg.version.label("egg_version"),
            Revision.inputs, Revision.image, Revision.status, Revision.created_by, Revision.created_on,
        )
        .join(Egg, Egg.id == Revision.egg_id)
        .where(Revision.deployment_id == deployment_id, Revision.tenant_id == tenant_id)
        .order_by(Revision.number.desc())
    )  # fmt: skip
    return fetch(session, query, window)


def missing(deployment_id: int) -> NotFound:
    """What is said of a deployment that is not there, or is another tenant's."""
    return NotFound(
        f"There is no deployment {deployment_id}.",
        code="deployment_not_found",
        hint="iceshelves list shows what is there.",
    )


def _all(tenant_id: int) -> Query:
    return (
        sa.select(*_LISTED)
        .join(Egg, Egg.id == Deployment.egg_id)
        .join(Cluster, Cluster.id == Deployment.cluster_id)
        .where(Deployment.tenant_id == tenant_id)
    )
