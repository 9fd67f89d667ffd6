"""The control plane, put together: database, engine, providers and use cases, with one life cycle."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial
from socket import socket
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from iceshelves.access import bootstrap
from iceshelves.access.cipher import open_cipher
from iceshelves.access.policy import Actor
from iceshelves.access.tokens import Authenticator
from iceshelves.clusters.adoption import Adoptions
from iceshelves.clusters.clusters import Clusters
from iceshelves.clusters.health import HealthMonitor
from iceshelves.clusters.inventory import InventoryKeeper
from iceshelves.clusters.members import Members
from iceshelves.clusters.providers import ProviderPool
from iceshelves.clusters.reaching import AGENT, Reach
from iceshelves.clusters.roster import Roster
from iceshelves.clusters.rotation import Rotated
from iceshelves.clusters.rows import Act, owned
from iceshelves.core import clock
from iceshelves.core.bus import Bus
from iceshelves.core.errors import Failed, IceShelvesError, NotFound
from iceshelves.core.log import logger
from iceshelves.core.settings import Settings
from iceshelves.core.threads import in_thread
from iceshelves.deploy import deployments
from iceshelves.deploy.agents import Agents
from iceshelves.deploy.deployments import Deployments
from iceshelves.deploy.image_mirror import ImageMirror
from iceshelves.deploy.original_agent import OriginalAgents
from iceshelves.deploy.runner import Runner
from iceshelves.factory.downloads import Downloads
from iceshelves.factory.registries import Registries
from iceshelves.factory.uploads import Uploads
from iceshelves.operations import asking, rows
from iceshelves.operations.engine import Engine, Journal
from iceshelves.operations.keeping import Cancels, Keeper
from iceshelves.operations.states import OPEN
from iceshelves.providers.base import Guest, Lifecycle, require
from iceshelves.store.database import Database, sqlite_url
from iceshelves.store.models import IdempotencyKey, LogLine, Operation
from iceshelves.store.queries import inventory

if TYPE_CHECKING:
    from iceshelves.deploy.work import Shelf
    from iceshelves.factory.builds import Builds
    from iceshelves.factory.images import PublishedImages
    from iceshelves.factory.worker import BuildWorker

_RETENTION_SECONDS: Final = 3600.0
_CANCEL_SECONDS: Final = 1.0
_CARE_SECONDS: Final = 10.0
_BATCH: Final = 500
_KEPT_KEYS: Final = timedelta(hours=24)

log = logger(__name__)


class ControlPlane:
    """Made synchronously, so that a bad setting or database shows before anything runs; then started."""

    def __init__(self, settings: Settings, engine: Engine | None = None) -> None:
        self.settings = settings
        settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.database = Database(settings.database_url or sqlite_url(settings.data / "iceshelves.db"))
        self.database.migrate()
        self.cipher = open_cipher(settings.encryption_key, settings.data / "encryption.key")
        bootstrap.check_key(self.database, self.cipher)
        #: the administrator's token, at the very first start only
        self.first_token = bootstrap.prepare(self.database)
        self.authenticator = Authenticator(self.database)
        self.bus = Bus()
        self._engine = engine or self._make_engine()
        self._reach = Reach(self.cipher, self._open_stream)
        self._providers = ProviderPool(self.database, self._reach)
        self.deployments = Deployments(self.database, self.cipher, settings.deployment_timeout, self._submit)
        self.registries = Registries(settings.data / "registry")
        self._keeper = Keeper(self.database, self.bus)
        self._cancels = Cancels(self._keeper)
        self._runner = Runner(
            self._keeper,
            self._cancels,
            self.cipher,
            self.bus,
            self._providers,
            self._shelf,
            settings.max_concurrent_deployments,
            self.deployments.follow_up,
        )
        self.agents = Agents(
            self.database, self.cipher, self.bus, self._runner, settings.max_concurrent_deployments
        )
        self.original_agents = OriginalAgents(self.database, self.cipher, self._runner)
        self.agents.on_waiting = self.original_agents.refuse
        self.uploads = Uploads(settings.data / "uploads")
        self.downloads = Downloads(self.database)
        self.images = ImageMirror(self.database, settings.data / "images", settings.image_cache)
        self.clusters = Clusters(self.database, self._providers, self._reach, self._drop_cluster)
        self.members = Members(self.database, self._providers)
        self.adoptions = Adoptions(self.database, self._providers)
        self._health = HealthMonitor(self.database, self._providers, self.bus, settings.health_interval)
        keeper = InventoryKeeper(self.database, self._providers, self.bus)
        self._roster = Roster(self.database, self._providers, [self._health.care, keeper.care])
        self._loop: asyncio.AbstractEventLoop | None = None
        self._chores: list[asyncio.Task[None]] = []
        #: operations that ended before are no longer in the engine's records
        self._forgotten: datetime | None = None

    @functools.cached_property
    def builds(self) -> Builds:
        """The use cases of builds.  Like all of the image factory, it takes no memory before it is used."""
        from iceshelves.factory.builds import Builds

        return Builds(self.database, self._submit)

    @functools.cached_property
    def published(self) -> PublishedImages:
        """The use cases of published images."""
        from iceshelves.factory.images import PublishedImages

        return PublishedImages(self.database, self.registries)

    @functools.cached_property
    def _build_worker(self) -> BuildWorker:
        from iceshelves.factory.worker import BuildWorker

        folder = self.settings.data / "builds"
        return BuildWorker(self._keeper, self._cancels, self.bus, self._providers, self.registries, folder)

    def _shelf(self, tenant_id: int) -> Shelf:
        from iceshelves.factory.shelf import RegistryShelf

        return RegistryShelf(self.registries, tenant_id)

    def _make_engine(self) -> Engine:
        from iceshelves.operations.dbos_engine import DbosEngine

        return DbosEngine(self.settings.database_url or sqlite_url(self.settings.data / "operations.db"))

    async def start(self) -> None:
        """Take up what was cut off, then be ready for new work."""
        self._loop = asyncio.get_running_loop()
        self.bus.attach(self._loop)
        self._keeper.logbook.start()
        await self._engine.start(self._carry_out)
        await self._look_after(0.0)
        self._chores = [
            asyncio.create_task(_regularly(_CANCEL_SECONDS, self._cancels.look)),
            asyncio.create_task(_regularly(_CARE_SECONDS, partial(self._look_after, _CARE_SECONDS))),
            asyncio.create_task(_regularly(_RETENTION_SECONDS, self._forget_old)),
            asyncio.create_task(_regularly(_CARE_SECONDS, self._health.look_at_agents)),
            asyncio.create_task(_regularly(_CARE_SECONDS, partial(in_thread, self.downloads.write))),
            asyncio.create_task(self._health.write()),
            asyncio.create_task(self._roster.keep()),
        ]

    async def stop(self) -> None:
        """Interrupt everything where it is; it goes on at the next start."""
        for chore in self._chores:
            chore.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)
        await self._engine.stop()
        await self.members.close()
        await self.images.close()
        await self._keeper.logbook.stop()
        await self._providers.close()
        self.downloads.write()  # the engine has taken the loop's threads with it
        self.registries.close()
        self.database.close()

    async def open_guest(self, actor: Actor, deployment_id: int) -> tuple[str, Guest]:
        """The instance's name, and the capability to reach into it.

        Raises :class:`NotFound`, also where an instance of that name is not this deployment's: a name that
        somebody asked for in vain must not open what was there before.
        """

        def look_up() -> tuple[int, str, str, str]:
            with self.database.read() as session:
                found = deployments.owned(session, actor, deployment_id)
                return found.cluster_id, found.instance_name, found.uid, bootstrap.installation_id(session)

        cluster_id, name, uid, installation = await in_thread(look_up)
        provider = await self._providers.get(cluster_id)
        there = await require(provider, Lifecycle).find(name)
        mark = None if there is None else there.mark
        if mark is None or (mark.deployment, mark.installation) != (uid, installation):
            raise NotFound(
                f"This deployment has no instance {name!r}.",
                code="instance_not_found",
                hint="iceshelves show says what became of it.",
            )
        return name, require(provider, Guest)

    async def rotate_key(self, act: Act) -> Rotated:
        """Renew the key by which a cluster is reached: ours to it, or its agent's to us."""

        def is_agents() -> bool:
            with self.database.read() as session:
                return owned(session, act.actor, act.cluster_id).connection_method == AGENT

        if not await in_thread(is_agents):
            return await self.clusters.rotation.rotate(act)
        await in_thread(self.agents.rotate, act.actor, act.cluster_id, act.request_id)
        return Rotated(
            "done", "", "The agent gets a new key at its next poll, and the present one ends then."
        )

    def cancel(self, actor: Actor, operation_id: str, request_id: str = "") -> None:
        """Ask an operation to stop; what it has made is undone.  Raises :class:`Conflict` if it has ended."""
        with self.database.write() as session:
            asking.cancel(session, actor, operation_id, request_id)
        self._interrupt(operation_id)

    async def _carry_out(self, journal: Journal, operation_id: str) -> None:
        worker = await self._worker_of(operation_id)
        await worker.carry_out(journal, operation_id)

    async def _worker_of(self, operation_id: str) -> Runner | BuildWorker:
        kind = await self._keeper.read(rows.kind, operation_id)
        return self._build_worker if kind == "build" else self._runner

    def _submit(self, operation_id: str) -> None:
        """Hand the operation over.  What goes wrong there is mended by :meth:`_look_after`."""
        if self._loop is None:
            return  # written down; the next start submits it
        asyncio.run_coroutine_threadsafe(self._hand_over(operation_id), self._loop)

    async def _hand_over(self, operation_id: str) -> None:
        try:
            if not await self.agents.takes(operation_id):
                await self._engine.submit(operation_id)
        except Exception:
            log.exception("operation %s was not taken by the engine; it is tried again", operation_id)

    async def _look_after(self, older_than: float) -> None:
        """Nothing is stuck: what was never handed over is handed over now, and what is dead ends.

        The first happens when a server dies between its answer and the start of the work, the second when
        the engine has given a workflow up.
        """
        waiting = await self._keeper.read(rows.open_operations, older_than)
        known = await self._engine.known(waiting)
        for operation_id in waiting:
            if operation_id not in known:
                await self._hand_over(operation_id)
                await self.agents.look_after(operation_id)
            elif not known[operation_id]:
                worker = await self._worker_of(operation_id)
                await worker.give_up(operation_id, _abandoned())

    def _interrupt(self, operation_id: str) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._cancels.cancel, operation_id)
            asyncio.run_coroutine_threadsafe(self._interrupt_agent(operation_id), self._loop)

    async def _interrupt_agent(self, operation_id: str) -> None:
        if await self.agents.takes(operation_id):
            await self.agents.look_after(operation_id)

    async def _open_stream(self, cluster_id: int) -> socket:
        return await self.agents.open_stream(cluster_id)

    def _drop_cluster(self, cluster_id: int) -> None:
        if self._loop is not None:
            asyncio.run_coroutine_threadsafe(self._begin_anew(cluster_id), self._loop)

    async def _begin_anew(self, cluster_id: int) -> None:
        self._roster.renew(cluster_id)
        await self._providers.drop(cluster_id)

    async def _forget_old(self) -> None:
        operation_ids = await in_thread(self._delete_old)
        for start in range(0, len(operation_ids), _BATCH):
            await self._engine.forget(operation_ids[start : start + _BATCH])

    def _delete_old(self) -> list[str]:
        """Delete logs and answers past their time; returns the operations whose records can go too."""
        self.uploads.forget_old()
        horizon = clock.now() - timedelta(days=self.settings.log_retention_days)
        with self.database.write() as session:
            session.execute(sa.delete(LogLine).where(LogLine.timestamp < horizon))
            session.execute(
                sa.delete(IdempotencyKey).where(IdempotencyKey.created_on < clock.now() - _KEPT_KEYS)
            )
            inventory.forget_unmanaged(session)
            query = sa.select(Operation.id).where(
                Operation.finished_at < horizon, Operation.status.not_in(OPEN)
            )
            if self._forgotten is not None:  # what ended before was forgotten by an earlier round
                query = query.where(Operation.finished_at >= self._forgotten)
            ended = list(session.execute(query).scalars())
        self._forgotten = horizon
        return ended


async def _regularly(seconds: float, chore: Callable[[], Awaitable[None]]) -> None:
    """Do ``chore`` again and again; that it fails once does not end it."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await chore()
        except Exception as error:
            known = isinstance(error, IceShelvesError)
            log.warning("a regular chore failed: %s", error, exc_info=None if known else error)


def _abandoned() -> Failed:
    return Failed(
        "The operation was interrupted too often, and was given up.",
        code="operation_abandoned",
        hint="Look at what is there, then retry or delete the deployment.",
    )
