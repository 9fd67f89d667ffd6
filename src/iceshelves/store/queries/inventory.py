"""The instances of all clusters as they were last seen, and what our records say of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias

import sqlalchemy as sa
from sqlalchemy.orm import Session

from iceshelves.core import clock
from iceshelves.store.models import Cluster, Deployment, KnownInstance
from iceshelves.store.queries.pages import Row, Slice, Window, fetch, mentions

_SHOWN: Final = (
    KnownInstance.name, KnownInstance.kind, KnownInstance.power, KnownInstance.member,
    KnownInstance.architecture, KnownInstance.image, KnownInstance.description, KnownInstance.ownership,
    KnownInstance.reason, KnownInstance.seen_on, KnownInstance.cluster_id,
    Cluster.name.label("cluster_name"), Deployment.id.label("deployment_id"),
)  # fmt: skip
#: what is kept of an instance, beside when it was seen
_KEPT: Final = (
    KnownInstance.kind, KnownInstance.power, KnownInstance.member, KnownInstance.architecture,
    KnownInstance.image, KnownInstance.description, KnownInstance.ownership, KnownInstance.reason,
    KnownInstance.deployment_uid,
)  # fmt: skip
#: the kept values of instances by column, by name
Rows: TypeAlias = dict[str, dict[str, Any]]
_CLAIMED: Final = (
    Deployment.id, Deployment.uid, Deployment.instance_name, Deployment.cluster_id, Deployment.living,
    Cluster.name.label("cluster_name"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class InstanceFilter:
    """What to list; an empty field does not filter."""

    cluster_id: int | None = None
    ownership: str | None = None
    search: str | None = None


def page(session: Session, tenant_id: int, wanted: InstanceFilter, window: Window) -> Slice:
    """Instances by cluster and name."""
    query = (
        sa.select(*_SHOWN)
        .join(Cluster, Cluster.id == KnownInstance.cluster_id)
        .outerjoin(
            Deployment,
            sa.and_(Deployment.uid == KnownInstance.deployment_uid, Deployment.tenant_id == tenant_id),
        )
        .where(KnownInstance.tenant_id == tenant_id, Cluster.is_active)
    )
    if wanted.cluster_id is not None:
        query = query.where(KnownInstance.cluster_id == wanted.cluster_id)
    if wanted.ownership:
        query = query.where(KnownInstance.ownership == wanted.ownership)
    if wanted.search:
        query = query.where(mentions(wanted.search, KnownInstance.name, KnownInstance.description))
    return fetch(session, query.order_by(Cluster.name, KnownInstance.name), window)


def of_cluster(session: Session, cluster_id: int) -> Rows:
    """Every known instance of a cluster, by name."""
    query = sa.select(KnownInstance.name, *_KEPT).where(KnownInstance.cluster_id == cluster_id)
    found = {}
    for row in session.execute(query).mappings():
        values = dict(row)
        found[values.pop("name")] = values
    return found


def hold(session: Session, cluster_id: int) -> bool:
    """Keep a cluster from being deleted, and others from writing its rows; whether it is managed at all."""
    query = sa.select(Cluster.is_active).where(Cluster.id == cluster_id).with_for_update(key_share=True)
    return bool(session.execute(query).scalar_one_or_none())


def replace(session: Session, cluster: Cluster, known: Rows, wanted: Rows) -> None:
    """Turn the rows ``known`` into ``wanted``.  Raises ``IntegrityError`` where they were not as known."""
    own = sa.and_(
        KnownInstance.cluster_id == sa.bindparam("of_cluster"), KnownInstance.name == sa.bindparam("called")
    )
    now = clock.now()
    gone = [{"of_cluster": cluster.id, "called": name} for name in known if name not in wanted]
    changed = [
        {"of_cluster": cluster.id, "called": name, "seen_on": now, **row}
        for name, row in wanted.items()
        if name in known and row != known[name]
    ]
    new = [
        {"cluster_id": cluster.id, "name": name, "tenant_id": cluster.tenant_id, "seen_on": now, **row}
        for name, row in wanted.items()
        if name not in known
    ]
    connection = session.connection()
    for statement, values in (
        (sa.delete(KnownInstance).where(own), gone),
        (sa.update(KnownInstance).where(own), changed),
        (sa.insert(KnownInstance), new),
    ):
        if values:
            connection.execute(statement, values)


def touch(session: Session, cluster_id: int, before: datetime) -> None:
    """Note that all instances of a cluster are there now, unless that was noted after ``before``."""
    session.execute(
        sa.update(KnownInstance)
        .where(KnownInstance.cluster_id == cluster_id, KnownInstance.seen_on < before)
        .values(seen_on=clock.now())
        .execution_options(synchronize_session=False)
    )


def claims(session: Session, tenant_id: int, cluster_id: int, uids: Collection[str]) -> Sequence[Row]:
    """The living deployments of a cluster, and those of the tenant that ``uids`` name, wherever they are."""
    query = (
        sa.select(*_CLAIMED)
        .join(Cluster, Cluster.id == Deployment.cluster_id)
        .where(
            Deployment.tenant_id == tenant_id,
            sa.or_(
                sa.and_(Deployment.cluster_id == cluster_id, Deployment.living),
                Deployment.uid.in_(uids),
            ),
        )
    )
    return session.execute(query).all()


def forget_unmanaged(session: Session) -> None:
    """Remove what is known of clusters that are managed no more, and are but kept for the record."""
    gone = sa.select(Cluster.id).where(~Cluster.is_active)
    session.execute(sa.delete(KnownInstance).where(KnownInstance.cluster_id.in_(gone)))
