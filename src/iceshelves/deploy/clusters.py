"""Use cases of clusters: add, test, delete."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from iceshelves.access import audit
from iceshelves.access.policy import Actor
from iceshelves.core import clock
from iceshelves.core.errors import Conflict, IceShelvesError, InvalidInput, NotFound
from iceshelves.core.names import check_object_name
from iceshelves.core.threads import in_thread
from iceshelves.deploy.providers import ProviderPool, connection_of
from iceshelves.deploy.requests import NewCluster
from iceshelves.providers.base import Placement, Provider, ServerInfo
from iceshelves.providers.registry import open_provider
from iceshelves.store.database import Database
from iceshelves.store.models import Cluster, Deployment

#: where the daemons of each family listen: LXD's snap and Debian's package differ
_USUAL_SOCKETS: Final = {
    "incus": ("/var/lib/incus/unix.socket",),
    "lxd": ("/var/snap/lxd/common/lxd/unix.socket", "/var/lib/lxd/unix.socket"),
}
_LATER_METHODS: Final = frozenset({"direct-api", "direct", "ssh", "agent-poll", "agent"})
METHOD: Final = "unix-socket"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried, and what to do if it did not work."""

    name: str
    ok: bool
    message: str
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class ClusterReport:
    """What a test of a cluster found.  ``status`` is active or error."""

    status: str
    message: str
    server: ServerInfo | None = None
    checks: tuple[Check, ...] = ()
    members: tuple[dict[str, Any], ...] = field(default_factory=tuple)


class Clusters:
    """Adding, testing and deleting; ``on_drop`` closes what is open to a cluster that is gone."""

    def __init__(self, database: Database, providers: ProviderPool, on_drop: Callable[[int], None]) -> None:
        self._database = database
        self._providers = providers
        self._on_drop = on_drop

    def add(self, actor: Actor, new: NewCluster, request_id: str = "") -> int:
        """Write down a new cluster and return its id; nothing is sent to it.

        Raises :class:`InvalidInput`, and :class:`Conflict` ``cluster_exists``.
        """
        check_object_name(new.name, "a cluster")
        if new.connection_method in _LATER_METHODS:
            raise InvalidInput(
                f"This version cannot reach a cluster by {new.connection_method!r} yet.",
                code="unsupported_connection",
                hint=f"Run IceShelves on the hypervisor and use {METHOD!r}.",
            )
        if new.connection_method != METHOD:
            raise InvalidInput(
                f"{new.connection_method!r} is not a connection method.",
                code="unsupported_connection",
                hint=f"Use {METHOD!r}.",
            )
        cluster = Cluster(
            tenant_id=actor.tenant_id,
            name=new.name,
            description=new.description,
            provider=new.provider,
            connection_method=new.connection_method,
            endpoint_url=new.endpoint_url or _usual_socket(new.provider),
            project=new.project,
            options=new.options,
            max_operations=new.max_operations,
            created_by=actor.name,
        )
        open_provider(new.provider, connection_of(cluster))  # refuses what could never be reached
        try:
            with self._database.write() as session:
                session.add(cluster)
                session.flush()
                audit.record(session, actor, "cluster.add", new.name, request_id=request_id)
                return cluster.id
        except IntegrityError as error:
            raise Conflict(
                f"There is a cluster called {new.name!r} already.",
                code="cluster_exists",
                hint="Choose another name, or delete the other one first.",
            ) from error

    def delete(self, actor: Actor, cluster_id: int, request_id: str = "") -> None:
        """Forget a cluster; nothing on it is touched.  Refused while deployments live on it."""
        with self._database.write() as session:
            cluster = _owned(session.get(Cluster, cluster_id, with_for_update=True), actor)
            living = session.execute(
                sa.select(sa.func.count())
                .select_from(Deployment)
                .where(Deployment.cluster_id == cluster_id, Deployment.living)
            ).scalar_one()
            if living:
                raise Conflict(
                    f"The cluster {cluster.name} has {living} deployments.",
                    code="cluster_in_use",
                    hint=f"Delete them first: iceshelves list --cluster {cluster.name}",
                )
            used = session.execute(
                sa.select(Deployment.id).where(Deployment.cluster_id == cluster_id).limit(1)
            ).first()
            audit.record(session, actor, "cluster.delete", cluster.name, request_id=request_id)
            if used is None:
                session.delete(cluster)
            else:  # the record of past deployments names it
                cluster.is_active = False
                cluster.name = f"{cluster.name[:40]}~{cluster.id}"
        self._on_drop(cluster_id)

    async def test(self, actor: Actor, cluster_id: int) -> ClusterReport:
        """Try the connection step by step and remember what was found."""
        await in_thread(self._check_owner, actor, cluster_id)
        report = await self._probe(cluster_id)
        await in_thread(self._remember, cluster_id, report)
        return report

    def _check_owner(self, actor: Actor, cluster_id: int) -> None:
        with self._database.read() as session:
            owned(session, actor, cluster_id)

    async def _probe(self, cluster_id: int) -> ClusterReport:
        checks: list[Check] = []
        try:
            provider = await self._providers.get(cluster_id)
            server = await provider.probe()
        except IceShelvesError as error:
            checks.append(Check("connection", ok=False, message=error.message, remedy=error.hint))
            return ClusterReport("error", error.message, checks=tuple(checks))
        checks.append(Check("connection", ok=True, message=f"{server.name} answers"))
        checks.append(Check("version", ok=True, message=f"{server.family} {server.version}"))
        kinds = ", ".join(sorted(server.kinds)) or "none"
        checks.append(Check("instances", ok=bool(server.kinds), message=f"kinds that run here: {kinds}"))
        members = await _members(provider, checks)
        failed = next((check for check in checks if not check.ok), None)
        message = failed.message if failed else f"{server.family} {server.version} on {server.name}"
        return ClusterReport("error" if failed else "active", message, server, tuple(checks), members)

    def _remember(self, cluster_id: int, report: ClusterReport) -> None:
        with self._database.write() as session:
            cluster = session.get(Cluster, cluster_id)
            if cluster is None:
                return
            cluster.status = report.status
            cluster.status_message = report.message
            cluster.last_check = clock.now()
            if report.server is not None:
                cluster.is_cluster = report.server.clustered
                cluster.server_info = {
                    "family": report.server.family,
                    "version": report.server.version,
                    "api_version": report.server.api_version,
                    "name": report.server.name,
                    "kinds": sorted(report.server.kinds),
                    "members": list(report.members),
                }


def _usual_socket(provider: str) -> str:
    """The usual socket that is there, or the most usual one."""
    usual = _USUAL_SOCKETS.get(provider, ("",))
    return next((path for path in usual if Path(path).is_socket()), usual[0])


async def _members(provider: Provider, checks: list[Check]) -> tuple[dict[str, Any], ...]:
    placement = provider.offers(Placement)
    if placement is None:
        return ()
    try:
        members = await placement.members()
    except IceShelvesError as error:
        checks.append(Check("members", ok=False, message=error.message, remedy=error.hint))
        return ()
    online = sum(member.online for member in members)
    checks.append(Check("members", ok=online > 0, message=f"{online} of {len(members)} online"))
    return tuple(
        {"name": member.name, "online": member.online, "status": member.status, "message": member.message}
        for member in members
    )


def owned(session: Session, actor: Actor, cluster_id: int) -> Cluster:
    """The actor's cluster.  Another tenant's answers as one that does not exist."""
    return _owned(session.get(Cluster, cluster_id), actor)


def held(session: Session, actor: Actor, cluster_id: int) -> Cluster:
    """The same, kept from being deleted until the transaction ends."""
    return _owned(session.get(Cluster, cluster_id, with_for_update={"read": True}), actor)


def _owned(cluster: Cluster | None, actor: Actor) -> Cluster:
    if cluster is None or cluster.tenant_id != actor.tenant_id or not cluster.is_active:
        raise NotFound("There is no such cluster.", code="cluster_not_found", hint="iceshelves cluster list")
    return cluster
