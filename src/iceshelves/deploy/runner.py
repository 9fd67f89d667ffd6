"""Carries operations out in the server: those of clusters that it reaches itself."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from iceshelves.access.cipher import Cipher
from iceshelves.clusters.providers import ProviderPool
from iceshelves.core.bus import Bus
from iceshelves.core.errors import IceShelvesError, Temporary
from iceshelves.core.log import logger
from iceshelves.deploy import records
from iceshelves.deploy.engine import Journal
from iceshelves.deploy.execution import Execution, internal_error
from iceshelves.deploy.job import Ending, Job
from iceshelves.deploy.logbook import Logbook, StepReport
from iceshelves.deploy.plans import Plans
from iceshelves.deploy.slots import Slots, Wanted
from iceshelves.deploy.states import OperationStatus, StepStatus
from iceshelves.store.database import Database

log = logger(__name__)


class Runner:
    """One per process; lives on the event loop."""

    def __init__(
        self,
        database: Database,
        cipher: Cipher,
        bus: Bus,
        providers: ProviderPool,
        limit: int,
        follow_up: Callable[[Job], None],
    ) -> None:
        """``limit`` counts operations at once on a cluster that has no limit of its own."""
        self._database = database
        self._cipher = cipher
        self._bus = bus
        self._providers = providers
        self._limit = limit
        self._slots = Slots()
        self._plans: defaultdict[int, Plans] = defaultdict(Plans)
        self._follow_up = follow_up
        self.logbook = Logbook(database, bus)
        self._cancels: dict[str, asyncio.Event] = {}

    def cancel(self, operation_id: str) -> None:
        """Interrupt the step that runs, if the operation runs here."""
        if (event := self._cancels.get(operation_id)) is not None:
            event.set()

    async def look_for_cancels(self) -> None:
        """Notice what was cancelled through another server."""
        waiting = [key for key, event in self._cancels.items() if not event.is_set()]
        if waiting:
            for operation_id in await self.read(records.cancel_requested, waiting):
                self.cancel(operation_id)

    async def carry_out(self, journal: Journal, operation_id: str) -> None:
        """The workflow.  Whatever happens in it, the operation ends."""
        cancel = self._cancels.setdefault(operation_id, asyncio.Event())
        try:
            job = await self.read(records.load, self._cipher, operation_id)
            slot = Wanted(job.cluster_id, job.limit or self._limit, job.begun)
            async with self._slots.of(slot, cancel):
                provider = partial(self._providers.get, job.cluster_id)
                plans = self._plans[job.cluster_id]
                await Execution(job, _DatabaseDesk(self, job), provider, cancel, plans).run(journal)
        except IceShelvesError as error:
            await self.give_up(operation_id, error)
        except Exception:
            log.exception("operation %s cannot go on", operation_id)
            await self.give_up(operation_id, internal_error(operation_id))
        finally:
            self._cancels.pop(operation_id, None)

    async def give_up(self, operation_id: str, error: IceShelvesError) -> None:
        """End an operation that cannot go on, if it has not ended; what it made is left for a look."""
        deployment_id, was_open = await self.write(records.give_up, operation_id, error.to_json())
        if was_open:
            log.error("operation %s was given up: %s", operation_id, error)
            self._bus.publish(f"operation:{operation_id}", f"deployment:{deployment_id}")

    async def go_back(self, job: Job, ending: Ending) -> None:
        """Answer a later revision's failure by a roll-back to the last good one, where that is due."""
        while goes_back(job, ending):
            try:
                await asyncio.to_thread(self._follow_up, job)
            except Temporary as error:
                log.warning("the database is away, trying again: %s", error)
                await asyncio.sleep(error.delay)
            except IceShelvesError as error:
                log.warning("%s is not rolled back: %s", job.spec.instance, error)
                return
            except Exception:
                log.exception("%s is not rolled back", job.spec.instance)
                return
            else:
                return

    def tell(self, job: Job) -> None:
        """Wake whoever watches the operation."""
        self._bus.publish(f"operation:{job.operation_id}", f"deployment:{job.deployment_id}")

    async def read(self, function: Callable[..., Any], *arguments: object) -> Any:
        """Run a function of ``records`` that only reads, in a thread."""
        return await self._patiently(_reading, function, *arguments)

    async def write(self, function: Callable[..., Any], *arguments: object) -> Any:
        """Run a function of ``records`` in a transaction of its own, in a thread."""
        return await self._patiently(_writing, function, *arguments)

    async def _patiently(self, transaction: Callable[..., Any], *arguments: object) -> Any:
        """A database that is away is waited for."""
        while True:
            try:
                return await asyncio.to_thread(transaction, self._database, *arguments)
            except Temporary as error:
                log.warning("the database is away, trying again: %s", error)
                await asyncio.sleep(error.delay)


class _DatabaseDesk:
    """The :class:`~iceshelves.deploy.execution.Desk` of the server."""

    def __init__(self, runner: Runner, job: Job) -> None:
        self._runner = runner
        self._job = job

    async def begin(self) -> bool:
        started: bool = await self._write(records.begin)
        self._runner.tell(self._job)
        return started

    async def begin_step(self, name: str) -> int:
        seen: int = await self._write(records.begin_step, name)
        self._runner.tell(self._job)
        return seen

    async def end_step(self, name: str, status: StepStatus, message: str) -> None:
        await self._runner.logbook.flush()
        await self._write(records.end_step, name, status, message)
        self._runner.tell(self._job)

    async def seconds_left(self) -> float:
        left: float = await self._runner.read(records.seconds_left, self._job.operation_id)
        return left

    async def cancel_requested(self) -> bool:
        return bool(await self._runner.read(records.cancel_requested, [self._job.operation_id]))

    async def was_touched(self) -> bool:
        touched: bool = await self._runner.read(records.was_touched, self._job.deployment_id)
        return touched

    async def end(self, ending: Ending) -> bool:
        await self._runner.logbook.flush()
        ended: bool = await self._write(records.end, ending)
        self._runner.tell(self._job)
        if ended:
            await self._runner.go_back(self._job, ending)
        return ended

    def report(self, step: str) -> StepReport:
        return self._runner.logbook.report(self._job, step)

    async def _write(self, function: Callable[..., Any], *arguments: object) -> Any:
        return await self._runner.write(function, self._job.operation_id, *arguments)


def goes_back(job: Job, ending: Ending) -> bool:
    """Whether a later revision's failure is answered by a roll-back to the last good one."""
    if job.kind != "deploy" or not job.replaces or ending.status is OperationStatus.SUCCEEDED:
        return False
    touched = "volumes" in ending.facts  # the step before the first change to the instance
    return touched and (job.on_failure == "cleanup" or ending.status is OperationStatus.CANCELLED)


def _reading(database: Database, function: Callable[..., Any], *arguments: object) -> Any:
    with database.read() as session:
        return function(session, *arguments)


def _writing(database: Database, function: Callable[..., Any], *arguments: object) -> Any:
    session: Session
    with database.write() as session:
        return function(session, *arguments)
