"""The control plane, put together: database, engine, providers and use cases, with one life cycle."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

import sqlalchemy as sa

from iceshelves.access import bootstrap
from iceshelves.access.cipher import open_cipher
from iceshelves.access.policy import Actor
from iceshelves.access.tokens import Authenticator
from iceshelves.core import clock
from iceshelves.core.bus import Bus
from iceshelves.core.errors import IceShelvesError
from iceshelves.core.log import logger
from iceshelves.core.settings import Settings
from iceshelves.core.threads import in_thread
from iceshelves.deploy import deployments, records
from iceshelves.deploy.clusters import Clusters
from iceshelves.deploy.deployments import Deployments
from iceshelves.deploy.engine import Engine
from iceshelves.deploy.providers import ProviderPool
from iceshelves.deploy.runner import Runner
from iceshelves.deploy.slots import Slots
from iceshelves.deploy.states import OPEN
from iceshelves.providers.base import Guest, require
from iceshelves.store.database import Database, sqlite_url
from iceshelves.store.models import Cluster, IdempotencyKey, LogLine, Operation

_RETENTION_SECONDS: Final = 3600.0
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
        #: the administrator's token, at the very first start only
        self.first_token = bootstrap.prepare(self.database)
        self.authenticator = Authenticator(self.database)
        self.bus = Bus()
        self._engine = engine or self._make_engine()
        self._providers = ProviderPool(self.database)
        self._limits: dict[int, int] = {}
        self._runner = Runner(
            self.database,
            self.cipher,
            self.bus,
            self._providers,
            Slots(self._limit_of),
            self._follow_up,
        )
        self.clusters = Clusters(self.database, self._providers, self._drop_cluster)
        self.deployments = Deployments(
            self.database, self.cipher, settings.deployment_timeout, self._submit, self._interrupt
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._chores: list[asyncio.Task[None]] = []

    def _make_engine(self) -> Engine:
        from iceshelves.deploy.dbos_engine import DbosEngine

        return DbosEngine(self.settings.database_url or sqlite_url(self.settings.data / "operations.db"))

    async def start(self) -> None:
        """Take up what was cut off, then be ready for new work."""
        self._loop = asyncio.get_running_loop()
        self.bus.attach(self._loop)
        self._runner.logbook.start()
        await self._engine.start(self._runner.carry_out)
        # written down, but not handed over before the process died; those that were are known by their id
        for operation_id in await in_thread(records.open_operations, self.database):
            await self._engine.submit(operation_id)
        self._chores = [
            asyncio.create_task(self._runner.watch_cancels()),
            asyncio.create_task(self._retention()),
        ]

    async def stop(self) -> None:
        """Interrupt everything where it is; it goes on at the next start."""
        for chore in self._chores:
            chore.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)
        await self._engine.stop()
        await self._runner.logbook.stop()
        await self._providers.close()
        self.database.close()

    async def open_guest(self, actor: Actor, deployment_id: int) -> tuple[str, Guest]:
        """The instance's name, and the capability to reach into it."""

        def look_up() -> tuple[int, str]:
            with self.database.read() as session:
                found = deployments.owned(session, actor, deployment_id)
                return found.cluster_id, found.instance_name

        cluster_id, name = await in_thread(look_up)
        return name, require(await self._providers.get(cluster_id), Guest)

    def _submit(self, operation_id: str) -> None:
        if self._loop is None:
            return  # written down; the next start submits it
        asyncio.run_coroutine_threadsafe(self._engine.submit(operation_id), self._loop)

    def _interrupt(self, operation_id: str) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._runner.cancel, operation_id)

    def _drop_cluster(self, cluster_id: int) -> None:
        if self._loop is not None:
            asyncio.run_coroutine_threadsafe(self._providers.drop(cluster_id), self._loop)

    def _follow_up(self, job: records.Job) -> None:
        try:
            self.deployments.follow_up(job)
        except IceShelvesError as error:
            log.warning("%s is not rolled back: %s", job.spec.instance, error)

    def _limit_of(self, cluster_id: int) -> int:
        # a cluster's own limit never changes while it exists, so it is looked up once
        if cluster_id not in self._limits:
            with self.database.read() as session:
                own = session.execute(
                    sa.select(Cluster.max_operations).where(Cluster.id == cluster_id)
                ).scalar_one_or_none()
            self._limits[cluster_id] = own or self.settings.max_concurrent_deployments
        return self._limits[cluster_id]

    async def _retention(self) -> None:
        while True:
            await asyncio.sleep(_RETENTION_SECONDS)
            try:
                await self._engine.forget(await in_thread(self._delete_old))
            except IceShelvesError as error:
                log.warning("deleting old records failed: %s", error)

    def _delete_old(self) -> list[str]:
        """Delete logs and answers past their time; returns the operations whose records can go too."""
        horizon = clock.now() - timedelta(days=self.settings.log_retention_days)
        with self.database.write() as session:
            session.execute(sa.delete(LogLine).where(LogLine.timestamp < horizon))
            session.execute(
                sa.delete(IdempotencyKey).where(IdempotencyKey.created_on < clock.now() - _KEPT_KEYS)
            )
            ended = session.execute(
                sa.select(Operation.id).where(Operation.finished_at < horizon, Operation.status.not_in(OPEN))
            )
            return list(ended.scalars())
