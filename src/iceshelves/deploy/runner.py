"""Carries operations on deployments out in the server: those of clusters that it reaches itself."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from functools import partial

from iceshelves.access.cipher import Cipher
from iceshelves.clusters.providers import ProviderPool
from iceshelves.core.bus import Bus
from iceshelves.core.errors import IceShelvesError, Temporary
from iceshelves.core.log import logger
from iceshelves.deploy import records
from iceshelves.deploy.execution import Execution
from iceshelves.deploy.job import Job
from iceshelves.deploy.plans import Plans
from iceshelves.deploy.work import Shelf
from iceshelves.operations.engine import Journal
from iceshelves.operations.execution import internal_error
from iceshelves.operations.job import Ending
from iceshelves.operations.keeping import Cancels, DatabaseDesk, Keeper
from iceshelves.operations.slots import Slots, Wanted
from iceshelves.operations.states import OperationStatus

log = logger(__name__)


class Runner:
    """One per process; lives on the event loop."""

    def __init__(
        self,
        keeper: Keeper,
        cancels: Cancels,
        cipher: Cipher,
        bus: Bus,
        providers: ProviderPool,
        shelf: Callable[[int], Shelf],
        limit: int,
        follow_up: Callable[[Job], None],
    ) -> None:
        """``shelf`` gives a tenant's images; ``limit`` is for clusters without a limit of their own."""
        self.keeper = keeper
        self._cancels = cancels
        self._cipher = cipher
        self._bus = bus
        self._providers = providers
        self._shelf = shelf
        self._limit = limit
        self._slots = Slots()
        self._plans: defaultdict[int, Plans] = defaultdict(Plans)
        self._follow_up = follow_up

    async def carry_out(self, journal: Journal, operation_id: str) -> None:
        """The workflow.  Whatever happens in it, the operation ends."""
        cancel = self._cancels.of(operation_id)
        try:
            job = await self.keeper.read(records.load, self._cipher, operation_id)
            slot = Wanted(job.cluster_id, job.limit or self._limit, job.begun)
            async with self._slots.of(slot, cancel):
                provider = partial(self._providers.get, job.cluster_id)
                plans = self._plans[job.cluster_id]
                shelf = self._shelf(job.tenant_id)
                await Execution(job, _Desk(self, job), provider, cancel, plans, shelf).run(journal)
        except IceShelvesError as error:
            await self.give_up(operation_id, error)
        except Exception:
            log.exception("operation %s cannot go on", operation_id)
            await self.give_up(operation_id, internal_error(operation_id))
        finally:
            self._cancels.forget(operation_id)

    async def give_up(self, operation_id: str, error: IceShelvesError) -> None:
        """End an operation that cannot go on, if it has not ended; what it made is left for a look."""
        deployment_id, was_open = await self.keeper.write(records.give_up, operation_id, error.to_json())
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


class _Desk(DatabaseDesk):
    """The :class:`~iceshelves.deploy.execution.Desk` of the server."""

    _job: Job

    def __init__(self, runner: Runner, job: Job) -> None:
        super().__init__(runner.keeper, job)
        self._runner = runner

    async def begin(self) -> bool:
        started: bool = await self._write(records.begin)
        self._keeper.tell(self._job)
        return started

    async def was_touched(self) -> bool:
        touched: bool = await self._keeper.read(records.was_touched, self._job.deployment_id)
        return touched

    async def end(self, ending: Ending) -> bool:
        await self._keeper.logbook.flush()
        ended: bool = await self._write(records.end, ending)
        self._keeper.tell(self._job)
        if ended:
            await self._runner.go_back(self._job, ending)
        return ended


def goes_back(job: Job, ending: Ending) -> bool:
    """Whether a later revision's failure is answered by a roll-back to the last good one."""
    if job.kind != "deploy" or not job.replaces or ending.status is OperationStatus.SUCCEEDED:
        return False
    touched = "volumes" in ending.facts  # the step before the first change to the instance
    return touched and (job.on_failure == "cleanup" or ending.status is OperationStatus.CANCELLED)
