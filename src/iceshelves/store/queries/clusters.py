"""Clusters: as a list, and one by number or name.  An inactive one is gone; only the records name it."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from iceshelves.core.errors import NotFound
from iceshelves.store.models import Agent, Cluster
from iceshelves.store.queries.pages import Row, Slice, Window, fetch

_SHOWN: Final = (
    Cluster.id, Cluster.name, Cluster.description, Cluster.provider, Cluster.connection_method,
    Cluster.endpoint_url, Cluster.project, Cluster.status, Cluster.is_active, Cluster.last_check,
    Cluster.max_operations, Cluster.created_by, Cluster.created_on,
)  # fmt: skip
_DETAIL: Final = (
    Cluster.is_cluster, Cluster.status_message, Cluster.status_since, Cluster.server_info, Cluster.connection,
    Agent.last_seen.label("agent_last_seen"), Agent.version.label("agent_version"),
    Agent.host.label("agent_host"), Agent.poll_interval.label("agent_poll_interval"),
)  # fmt: skip
_MAX_ID: Final = 2**31 - 1


def page(session: Session, tenant_id: int, window: Window) -> Slice:
    """Clusters by name."""
    query = sa.select(*_SHOWN).where(Cluster.tenant_id == tenant_id, Cluster.is_active).order_by(Cluster.name)
    return fetch(session, query, window)


def find(session: Session, tenant_id: int, reference: str) -> Row:
    """The cluster that ``reference``, a number or a name, names.  Raises :class:`NotFound`."""
    query = (
        sa.select(*_SHOWN, *_DETAIL)
        .outerjoin(Agent, Agent.cluster_id == Cluster.id)
        .where(Cluster.tenant_id == tenant_id, Cluster.is_active, _named(reference))
    )
    row = session.execute(query).one_or_none()
    if row is None:
        raise missing(reference)
    return row


def id_of(session: Session, tenant_id: int, reference: str) -> int:
    """The number of the cluster that ``reference`` names.  Raises :class:`NotFound`."""
    query = sa.select(Cluster.id).where(Cluster.tenant_id == tenant_id, Cluster.is_active, _named(reference))
    found: int | None = session.execute(query).scalar_one_or_none()
    if found is None:
        raise missing(reference)
    return found


def missing(reference: str) -> NotFound:
    """What is said of a cluster that is not there, or is another tenant's."""
    return NotFound(
        f"There is no cluster {reference!r}.",
        code="cluster_not_found",
        hint="iceshelves cluster list shows what is there.",
    )


def _named(reference: str) -> sa.ColumnElement[Any]:
    if reference.isascii() and reference.isdigit():
        number = int(reference) if len(reference) <= 10 else 0
        return Cluster.id == (number if number <= _MAX_ID else 0)
    return Cluster.name == reference
