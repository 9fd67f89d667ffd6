"""The stored clusters: finding an actor's own, and changing one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from iceshelves.access import audit
from iceshelves.access.policy import Actor
from iceshelves.core.errors import NotFound
from iceshelves.store.database import Database
from iceshelves.store.models import Cluster


def owned(session: Session, actor: Actor, cluster_id: int) -> Cluster:
    """The actor's cluster.  Another tenant's answers as one that does not exist."""
    return _owned(session.get(Cluster, cluster_id), actor)


def held(session: Session, actor: Actor, cluster_id: int) -> Cluster:
    """The same, kept from being deleted until the transaction ends."""
    return _owned(session.get(Cluster, cluster_id, with_for_update={"read": True}), actor)


def claimed(session: Session, actor: Actor, cluster_id: int) -> Cluster:
    """The same, kept from everybody else until the transaction ends."""
    return _owned(session.get(Cluster, cluster_id, with_for_update=True), actor)


def _owned(cluster: Cluster | None, actor: Actor) -> Cluster:
    if cluster is None or cluster.tenant_id != actor.tenant_id or not cluster.is_active:
        raise NotFound("There is no such cluster.", code="cluster_not_found", hint="iceshelves cluster list")
    return cluster


@dataclass(frozen=True, slots=True)
class Act:
    """Who changes which cluster, by which request."""

    actor: Actor
    cluster_id: int
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Edit:
    """``change`` changes a row, and returns what the audit log says of it beside ``action``."""

    action: str
    change: Callable[[Cluster], dict[str, Any]]


class ClusterRows:
    """``on_change`` closes what is open to a cluster whose row has changed."""

    def __init__(self, database: Database, on_change: Callable[[int], None]) -> None:
        self.database = database
        self._on_change = on_change

    def find(self, actor: Actor, cluster_id: int) -> Cluster:
        """The actor's cluster as it is now; changing the object changes nothing else."""
        with self.database.read() as session:
            return owned(session, actor, cluster_id)

    def edit(self, act: Act, edit: Edit) -> None:
        """Change it and write that down, both or neither.  Raises :class:`NotFound`."""
        with self.database.write() as session:
            cluster = claimed(session, act.actor, act.cluster_id)
            details = edit.change(cluster)
            audit.record(
                session, act.actor, edit.action, cluster.name, request_id=act.request_id, details=details
            )
        self._on_change(act.cluster_id)
