"""Use cases of clusters: look, add, change, test, give new keys, delete."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import object_session

from iceshelves.access import audit
from iceshelves.access.policy import Actor
from iceshelves.clusters import adding, health, wishes
from iceshelves.clusters.adding import Adding, Prepared, Shown
from iceshelves.clusters.checks import examine
from iceshelves.clusters.health import Health
from iceshelves.clusters.outside import Outside, RealOutside
from iceshelves.clusters.pins import Pins
from iceshelves.clusters.providers import ProviderPool
from iceshelves.clusters.reaching import AGENT, DIRECT, SOCKET, SSH, Keys, Reach, SshAccess, ssh_address
from iceshelves.clusters.report import AgentState, ClusterReport, Subject
from iceshelves.clusters.requests import ClusterAddress, ClusterChange, NewCluster
from iceshelves.clusters.rotation import Rotation
from iceshelves.clusters.rows import Act, ClusterRows, Edit, claimed
from iceshelves.clusters.rows import held as held
from iceshelves.clusters.rows import owned as owned
from iceshelves.connections.unix import usual_socket
from iceshelves.core import clock
from iceshelves.core.errors import Conflict, IceShelvesError, InvalidInput
from iceshelves.core.names import check_object_name
from iceshelves.core.threads import in_thread
from iceshelves.providers.registry import open_provider
from iceshelves.store.database import Database
from iceshelves.store.models import DEFAULT_POLL_INTERVAL, Agent, Build, Cluster, Deployment

#: what may be wrong in a way that only a test can tell
_SETTLED_BY_A_TEST: Final = ("endpoint_url", "project", "options")


@dataclass(frozen=True, slots=True)
class Added:
    """A cluster that is managed now; ``trusted`` says whether the hypervisor has been told to trust us."""

    cluster_id: int
    trusted: bool


class Clusters:
    """``on_drop`` closes what is open to a cluster that is gone or has changed."""

    def __init__(
        self,
        database: Database,
        providers: ProviderPool,
        reach: Reach,
        on_drop: Callable[[int], None],
        outside: Outside | None = None,
    ) -> None:
        self._reach = reach
        self._database = database
        self._providers = providers
        self._on_drop = on_drop
        self._outside = outside or RealOutside()
        self._adding = Adding(self._outside)
        self._rows = ClusterRows(database, on_drop)
        self.pins = Pins(self._rows, reach, self._outside)
        self.rotation = Rotation(self._rows, reach, self._outside)

    async def look(self, wanted: ClusterAddress) -> tuple[Shown, ...]:
        """What the servers on the way to a cluster show of themselves; see :meth:`Adding.look`."""
        return await self._adding.look(wanted)

    async def connect(self, actor: Actor, new: NewCluster, request_id: str = "") -> Added:
        """Manage a cluster over any method, and have it trust us where the request brings the proof.

        If the hypervisor refuses that, nothing is kept.  Raises :class:`InvalidInput`, :class:`Denied`,
        :class:`Conflict` ``cluster_exists``, and what the network does.
        """
        await in_thread(self._check_free, actor, new.name)
        prepared = await self._adding.prepare(new)
        cluster_id = await in_thread(self.add, actor, new, request_id, prepared)
        if prepared.method not in (DIRECT, SSH):
            return Added(cluster_id, trusted=True)
        cluster = await in_thread(self._rows.find, actor, cluster_id)
        if prepared.proof is None:
            return Added(cluster_id, await self._lets_us_in(cluster))
        try:
            await self._outside.join(self._reach.tls(cluster), f"iceshelves-{new.name}", prepared.proof)
        except BaseException:
            with suppress(IceShelvesError):  # a server that ends now leaves it, to be deleted by hand
                await in_thread(self.delete, actor, cluster_id, request_id)
            raise
        return Added(cluster_id, trusted=True)

    def add(
        self, actor: Actor, new: NewCluster, request_id: str = "", prepared: Prepared | None = None
    ) -> int:
        """Write down a new cluster and return its id; nothing is sent to it.

        Without ``prepared`` only the methods that need no look at the other side will do.  Raises
        :class:`InvalidInput`, and :class:`Conflict` ``cluster_exists``.
        """
        check_object_name(new.name, "a cluster")
        row = prepared or adding.prepare_here(new)
        cluster = Cluster(
            tenant_id=actor.tenant_id,
            name=new.name,
            description=new.description,
            provider=new.provider,
            connection_method=row.method,
            endpoint_url=row.address,
            connection=row.connection,
            project=new.project,
            options=new.options,
            max_operations=new.max_operations,
            created_by=actor.name,
        )
        try:
            with self._database.write() as session:
                session.add(cluster)
                session.flush()
                if row.key is not None:
                    cluster.secrets = self._reach.seal(cluster.id, Keys(row.key))
                if row.method == AGENT:
                    agent = Agent(tenant_id=actor.tenant_id, cluster_id=cluster.id)
                    agent.poll_interval = new.agent_poll_interval or DEFAULT_POLL_INTERVAL
                    session.add(agent)
                self._check_reachable(cluster)
                method = {"method": row.method}
                audit.record(session, actor, "cluster.add", new.name, request_id=request_id, details=method)
                return cluster.id
        except IntegrityError as error:
            raise _exists(new.name) from error

    def change(self, act: Act, change: ClusterChange) -> None:
        """Change what ``change`` names.  Raises :class:`NotFound` and :class:`InvalidInput`."""
        given = {name: getattr(change, name) for name in change.model_fields_set}

        def write(cluster: Cluster) -> dict[str, Any]:
            former = [getattr(cluster, name) for name in _SETTLED_BY_A_TEST]
            for name, value in given.items():
                if name.startswith("agent_"):
                    _set_agent(cluster, name.removeprefix("agent_"), value)
                elif name == "endpoint_url":
                    _move(cluster, str(value or ""))
                elif value is not None or name == "max_operations":
                    setattr(cluster, name, value)
            self._check_reachable(cluster)
            if former != [getattr(cluster, name) for name in _SETTLED_BY_A_TEST]:
                cluster.status, cluster.status_message = health.UNKNOWN, "changed; not tested yet"
                cluster.status_since = clock.now()
            return {"changed": sorted(given)}

        self._rows.edit(act, Edit("cluster.change", write))

    def delete(self, actor: Actor, cluster_id: int, request_id: str = "") -> None:
        """Forget a cluster; nothing on it is touched.  Refused while deployments live on it."""
        with self._database.write() as session:
            cluster = claimed(session, actor, cluster_id)
            living = session.execute(
                sa.select(sa.func.count())
                .select_from(Deployment)
                .where(Deployment.cluster_id == cluster_id, Deployment.living)
            ).scalar_one()
            if living:
                raise Conflict(
                    f"The cluster {cluster.name} has {living} deployment{'' if living == 1 else 's'}.",
                    code="cluster_in_use",
                    hint=f"List them, then delete each of them: iceshelves list --cluster {cluster.name};"
                    f" iceshelves delete {cluster.name}:INSTANCE",
                )
            used = any(
                session.execute(sa.select(kind.id).where(kind.cluster_id == cluster_id).limit(1)).first()
                for kind in (Deployment, Build)
            )
            audit.record(session, actor, "cluster.delete", cluster.name, request_id=request_id)
            session.execute(sa.delete(Agent).where(Agent.cluster_id == cluster_id))
            if not used:
                session.delete(cluster)
            else:  # the record of past deployments and builds names it
                cluster.is_active = False
                cluster.name = f"{cluster.name[:40]}~{cluster.id}"
                cluster.secrets = None
        self._on_drop(cluster_id)

    async def test(self, actor: Actor, cluster_id: int) -> ClusterReport:
        """Try the connection step by step and remember what was found."""
        subject = await in_thread(self._subject, actor, cluster_id)
        report = await examine(subject, self._outside)
        await in_thread(self._remember, cluster_id, report)
        return report

    async def _lets_us_in(self, cluster: Cluster) -> bool:
        """Whether the other side trusts our key already; why it does not is for :meth:`test` to say."""
        direct = cluster.connection_method == DIRECT
        try:
            return await self._outside.trusts(
                self._reach.tls(cluster) if direct else self._reach.ssh(cluster)
            )
        except IceShelvesError:
            return False

    def _check_free(self, actor: Actor, name: str) -> None:
        """See that ``name`` can be had before a token that is good once is used up."""
        check_object_name(name, "a cluster")
        with self._database.read() as session:
            taken = sa.select(Cluster.id).where(Cluster.tenant_id == actor.tenant_id, Cluster.name == name)
            if session.execute(taken).first() is not None:
                raise _exists(name)

    def _check_reachable(self, cluster: Cluster) -> None:
        """Refuse what could never be reached.  Raises :class:`InvalidInput`."""
        open_provider(cluster.provider, self._reach.connection(cluster))

    def _subject(self, actor: Actor, cluster_id: int) -> Subject:
        with self._database.read() as session:
            cluster = owned(session, actor, cluster_id)
            connection = self._reach.connection(cluster)
            agent = session.execute(sa.select(Agent).where(Agent.cluster_id == cluster_id)).scalar()
        state = None if cluster.connection_method != AGENT else _state_of(agent)
        family = cluster.provider
        return Subject(cluster.name, family, connection, lambda: open_provider(family, connection), state)

    def _remember(self, cluster_id: int, report: ClusterReport) -> None:
        with self._database.write() as session:
            cluster = session.get(Cluster, cluster_id)
            if cluster is None:
                return
            away = any(not member["online"] for member in report.members)
            status = health.DEGRADED if away and report.status == health.ACTIVE else report.status
            health.apply(cluster, Health(status, report.message), clock.now())
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


def _exists(name: str) -> Conflict:
    return Conflict(
        f"There is a cluster called {name!r} already.",
        code="cluster_exists",
        hint="Choose another name, or delete the other one first.",
    )


def _set_agent(cluster: Cluster, name: str, value: Any) -> None:
    """Decide something for the cluster's agent; it hears of it at its next poll."""
    session = object_session(cluster)
    agent = None
    if session is not None:
        agent = session.execute(sa.select(Agent).where(Agent.cluster_id == cluster.id)).scalar_one_or_none()
    if agent is None:
        raise InvalidInput(
            f"The cluster {cluster.name} is not reached by an agent.",
            code="field_without_effect",
            hint="Leave out what is about its agent.",
        )
    if value is not None:
        setattr(agent, name, value)


def _move(cluster: Cluster, url: str) -> None:
    """Give ``cluster`` a new address; what it has to show stays the same.

    Raises :class:`InvalidInput` where its method has no such addresses.
    """
    if cluster.provider == "fake":
        cluster.endpoint_url = url
    elif cluster.connection_method == SOCKET:
        cluster.endpoint_url = wishes.checked_socket(url or usual_socket(cluster.provider))
    elif cluster.connection_method == DIRECT:
        cluster.endpoint_url = wishes.direct_url(wishes.with_scheme(url, "https"))
    elif cluster.connection_method == SSH:
        address = wishes.with_usual_socket(ssh_address(wishes.with_scheme(url, "ssh")), cluster.provider)
        stored = SshAccess.model_validate(cluster.connection)
        place = {"host": address.host, "user": address.user, "port": address.port}
        hops = (*stored.hops[:-1], stored.hops[-1].model_copy(update=place))
        cluster.connection = stored.model_copy(update={"hops": hops}).model_dump(mode="json")
        cluster.endpoint_url = address.to_url()
    else:
        raise InvalidInput(
            "A cluster that an agent reaches has no address.",
            code="field_without_effect",
            hint="Leave the address out.",
        )


def _state_of(agent: Agent | None) -> AgentState:
    if agent is None:
        return AgentState(health.seen_of(None))
    return AgentState(health.seen_of(agent), agent.version, agent.host, agent.long_poll)
