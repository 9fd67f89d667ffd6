"""The engine on DBOS Transact: its own SQLite file, or the schema ``dbos`` in PostgreSQL.

What DBOS leaves to us, and is done here:

- its default serializer is pickle, which lets whoever writes the database run code: JSON is set;
- its default version is a hash of the source, so that any change would orphan running work: it is pinned;
- as it opens SQLite, every step waits for the disk: it is given an engine in WAL mode;
- another server does not take over a dead one's work: on PostgreSQL each server holds an advisory lock named
  after its executor id, and whoever can take the lock of an owner of pending work knows that it is dead.

Two private names of DBOS are used, which is why its version is pinned exactly.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import hashlib
import uuid
from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa
from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer, SetWorkflowID

from iceshelves.core.log import logger
from iceshelves.operations.engine import Json, Work, Workflow
from iceshelves.store.database import SQLITE_PRAGMAS, create_engine

#: raised only together with a change to the order of ``Journal.once`` calls that old records cannot follow
_VERSION: Final = "iceshelves-1"
_TAKE_OVER_SECONDS: Final = 1.5
#: DBOS gives the loop its own pool for `to_thread`, without a bound unless one is set
_THREADS: Final = 24
_LOCK_SPACE: Final = 7310215
_GOING_ON: Final = frozenset({"PENDING", "ENQUEUED", "DELAYED"})

log = logger(__name__)


class _DbosJournal:
    async def once(self, name: str, work: Work) -> Json:
        async def recorded() -> Json:
            return await work()

        return await DBOS.run_step_async({"name": name}, recorded)


class DbosEngine:
    """See the module.  One per process: DBOS keeps its state in globals."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._engine = _open(database_url)
        self._shared = self._engine.dialect.name == "postgresql"
        # where several servers share a database none may pose as another, not even as its own former self
        self._executor = f"server-{uuid.uuid4()}" if self._shared else "server"
        self._own_lock: sa.Connection | None = None
        self._suspects: set[str] = set()
        self._run: Any = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._watcher: asyncio.Task[None] | None = None
        self._journal = _DbosJournal()

    async def start(self, workflow: Workflow) -> None:
        """Launch DBOS on the running loop; pending work of this server is taken up at once."""
        if self._shared:
            self._own_lock = await asyncio.to_thread(self._hold_lock)
        config: DBOSConfig = {
            "name": "iceshelves",
            "system_database_url": self._engine.url.render_as_string(hide_password=False),
            "system_database_engine": self._engine,
            "application_version": _VERSION,
            "executor_id": self._executor,
            "serializer": DBOSPortableJSONSerializer(),
            "log_level": "ERROR",
            "max_executor_threads": _THREADS,
        }
        DBOS(config=config)

        @DBOS.workflow(name="operation")
        async def run(operation_id: str) -> None:
            task = asyncio.current_task()
            if task is not None:
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            await workflow(self._journal, operation_id)

        self._run = run
        DBOS.launch()
        if self._shared:
            self._watcher = asyncio.create_task(self._take_over())

    async def submit(self, operation_id: str) -> None:
        """Start the workflow here; DBOS knows it by the operation's id, so a second start does nothing.

        In a context of its own: one operation may ask for another, which must not become part of it.
        """
        await asyncio.create_task(self._begin(operation_id), context=contextvars.Context())

    async def _begin(self, operation_id: str) -> None:
        with SetWorkflowID(operation_id):
            await DBOS.start_workflow_async(self._run, operation_id)

    async def known(self, operation_ids: Sequence[str]) -> dict[str, bool]:
        """What DBOS knows of them; one that it recovered too often has ended as much as any other."""
        if not operation_ids:
            return {}
        found = await DBOS.list_workflows_async(
            workflow_ids=list(operation_ids), load_input=False, load_output=False
        )
        return {status.workflow_id: status.status in _GOING_ON for status in found}

    async def forget(self, operation_ids: Sequence[str]) -> None:
        """Delete DBOS's records of ended workflows."""
        if operation_ids:
            await DBOS.delete_workflows_async(list(operation_ids))

    async def stop(self) -> None:
        """Cancel the running workflows, which leaves their records as they are, and shut DBOS down."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(DBOS.destroy, destroy_registry=True)
        if self._own_lock is not None:
            self._own_lock.close()
        self._engine.dispose()

    def _hold_lock(self) -> sa.Connection:
        connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        connection.execute(_lock("pg_advisory_lock", self._executor))
        return connection

    async def _take_over(self) -> None:
        while True:
            await asyncio.sleep(_TAKE_OVER_SECONDS)
            try:
                await asyncio.to_thread(self._recover_dead)
            except sa.exc.SQLAlchemyError as error:
                log.warning("looking for work to take over failed: %s", error)

    def _recover_dead(self) -> None:
        """Take over from owners of pending work that were without their lock twice in a row.

        Once is not enough: a database that was restarted has dropped the locks of the living too.
        """
        self._renew_lock()
        pending = sa.text(
            "SELECT DISTINCT executor_id FROM dbos.workflow_status"
            " WHERE status = 'PENDING' AND executor_id <> :own AND application_version = :version"
        )
        suspects: set[str] = set()
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            owners = connection.execute(pending, {"own": self._executor, "version": _VERSION}).scalars().all()
            for owner in owners:
                if not connection.execute(_lock("pg_try_advisory_lock", owner)).scalar_one():
                    continue
                with contextlib.ExitStack() as release:
                    release.callback(connection.execute, _lock("pg_advisory_unlock", owner))
                    if owner in self._suspects:
                        log.warning("taking over the work of %s, which is gone", owner)
                        DBOS._recover_pending_workflows([owner])
                    else:
                        suspects.add(owner)
        self._suspects = suspects

    def _renew_lock(self) -> None:
        try:
            if self._own_lock is not None:
                self._own_lock.execute(sa.text("SELECT 1"))
        except sa.exc.DBAPIError:
            if self._own_lock is not None:
                self._own_lock.invalidate()
                self._own_lock.close()
            self._own_lock = None
        if self._own_lock is None:
            self._own_lock = self._hold_lock()


def _open(url: str) -> sa.Engine:
    """An engine as DBOS expects it; for SQLite in WAL mode, with its own way to begin transactions."""
    if not url.startswith("sqlite"):
        return create_engine(url, pool_size=5)
    engine = sa.create_engine(url)

    @sa.event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: Any) -> None:
        # as in DBOS's _sys_db_sqlite: the driver begins, and always as a writer
        connection.isolation_level = "IMMEDIATE"
        for pragma in SQLITE_PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")

    return engine


def _lock(function: str, executor: str) -> sa.TextClause:
    digest = hashlib.sha256(executor.encode()).digest()
    key = int.from_bytes(digest[:4], "big", signed=True)
    return sa.text(f"SELECT {function}({_LOCK_SPACE}, {key})")
