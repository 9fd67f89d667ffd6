"""The records that a server keeps of its operations, written through whatever becomes of the database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from sqlalchemy.orm import Session

from iceshelves.core.bus import Bus
from iceshelves.core.errors import Temporary
from iceshelves.core.log import logger
from iceshelves.operations import rows
from iceshelves.operations.job import Job
from iceshelves.operations.logbook import Logbook, StepReport
from iceshelves.operations.states import StepStatus
from iceshelves.store.database import Database

log = logger(__name__)


class Keeper:
    """One per process; lives on the event loop."""

    def __init__(self, database: Database, bus: Bus) -> None:
        self._database = database
        self._bus = bus
        self.logbook = Logbook(database, bus)

    def tell(self, job: Job) -> None:
        """Wake whoever watches the operation."""
        self._bus.publish(*job.topics)

    async def read(self, function: Callable[..., Any], *arguments: object) -> Any:
        """Run a function of rows that only reads, in a thread."""
        return await self._patiently(_reading, function, *arguments)

    async def write(self, function: Callable[..., Any], *arguments: object) -> Any:
        """Run a function of rows in a transaction of its own, in a thread."""
        return await self._patiently(_writing, function, *arguments)

    async def _patiently(self, transaction: Callable[..., Any], *arguments: object) -> Any:
        """A database that is away is waited for."""
        while True:
            try:
                return await asyncio.to_thread(transaction, self._database, *arguments)
            except Temporary as error:
                log.warning("the database is away, trying again: %s", error)
                await asyncio.sleep(error.delay)


class DatabaseDesk:
    """What the :class:`~iceshelves.operations.execution.Desk` of each kind of operation has in the server."""

    def __init__(self, keeper: Keeper, job: Job) -> None:
        self._keeper = keeper
        self._job = job

    async def begin_step(self, name: str) -> int:
        seen: int = await self._write(rows.begin_step, name)
        self._keeper.tell(self._job)
        return seen

    async def end_step(self, name: str, status: StepStatus, message: str) -> None:
        await self._keeper.logbook.flush()
        await self._write(rows.end_step, name, status, message)
        self._keeper.tell(self._job)

    async def seconds_left(self) -> float:
        left: float = await self._keeper.read(rows.seconds_left, self._job.operation_id)
        return left

    async def cancel_requested(self) -> bool:
        return bool(await self._keeper.read(rows.cancel_requested, [self._job.operation_id]))

    def report(self, step: str) -> StepReport:
        return self._keeper.logbook.report(self._job, step)

    async def _write(self, function: Callable[..., Any], *arguments: object) -> Any:
        return await self._keeper.write(function, self._job.operation_id, *arguments)


class Cancels:
    """The operations that run in this process, and how each is interrupted."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._events: dict[str, asyncio.Event] = {}

    def of(self, operation_id: str) -> asyncio.Event:
        """Set when the operation is to stop."""
        return self._events.setdefault(operation_id, asyncio.Event())

    def forget(self, operation_id: str) -> None:
        """The operation does not run here any more."""
        self._events.pop(operation_id, None)

    def cancel(self, operation_id: str) -> None:
        """Interrupt the step that runs, if the operation runs here."""
        if (event := self._events.get(operation_id)) is not None:
            event.set()

    async def look(self) -> None:
        """Notice what was cancelled through another server."""
        waiting = [key for key, event in self._events.items() if not event.is_set()]
        if waiting:
            for operation_id in await self._keeper.read(rows.cancel_requested, waiting):
                self.cancel(operation_id)


def _reading(database: Database, function: Callable[..., Any], *arguments: object) -> Any:
    with database.read() as session:
        return function(session, *arguments)


def _writing(database: Database, function: Callable[..., Any], *arguments: object) -> Any:
    session: Session
    with database.write() as session:
        return function(session, *arguments)
