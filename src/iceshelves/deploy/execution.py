"""Carrying an operation on a deployment out, in the server and in an agent alike.

The two differ in the :class:`Desk` and the engine's journal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Protocol

from iceshelves.core.errors import IceShelvesError
from iceshelves.core.log import logger
from iceshelves.core.secret import redact
from iceshelves.core.text import storable
from iceshelves.deploy import steps
from iceshelves.deploy.job import CLEAN_UP, Job
from iceshelves.deploy.plans import Plan, Plans
from iceshelves.deploy.work import Shelf, Work
from iceshelves.operations import execution
from iceshelves.operations.engine import Journal, Json
from iceshelves.operations.job import Level, Report, Source
from iceshelves.operations.states import OperationStatus, StepStatus
from iceshelves.providers.base import Provider

_CLEAN_UP_SECONDS: Final = 300.0

log = logger(__name__)


class Desk(execution.Desk, Protocol):
    """The desk of an operation on a deployment."""

    async def was_touched(self) -> bool:
        """Whether any operation of the deployment got so far that something may be on the cluster."""
        ...


class Execution(execution.Execution):
    """One operation on a deployment being carried out."""

    #: a guest may take long to come up
    patient_steps = frozenset({"guest"})
    _job: Job
    _desk: Desk

    def __init__(
        self,
        job: Job,
        desk: Desk,
        provider: Callable[[], Awaitable[Provider]],
        cancel: asyncio.Event,
        plans: Plans | None = None,
        shelf: Shelf | None = None,
    ) -> None:
        """``plans`` are shared by all that is carried out on the same cluster."""
        super().__init__(job, desk, cancel)
        self._shelf = shelf
        #: by step; a step that is tried again must not log again what the guest had said by then
        self._guest_lines: dict[str, int] = {}
        self._provider = provider
        self._plans = Plans() if plans is None else plans

    async def run(self, journal: Journal) -> None:
        try:
            await super().run(journal)
        finally:
            self._plans.drop(self._job.operation_id)

    async def do(self, name: str, facts: Json, guest_lines: int) -> Json:
        if (plan := Plan.of(self._job.spec, facts)) is not None:
            self._plans.put(self._job.operation_id, plan)
        seen = self._guest_lines.setdefault(name, guest_lines)
        report = _Counting(self._desk.report(name))
        work = Work(
            spec=self._job.spec,
            mark=self._job.mark,
            provider=await self._provider(),
            report=report,
            facts=facts,
            guest_lines=seen,
            plans=self._plans,
            shelf=self._shelf,
        )
        try:
            return dict(await steps.step(name)(work))
        finally:
            self._guest_lines[name] = seen + report.guest_lines

    async def undo(self, journal: Journal, outcome: Json, begun: bool) -> bool:
        """Remove what a failed deployment made, if that is due; whether nothing of it is left."""
        if self._job.kind != "deploy":
            return False
        touched = await journal.once("look-back", self._look_back)
        if not touched["touched"]:
            return True
        if not begun or not _leaves_nothing(self._job, outcome):
            return False
        undone = await journal.once(CLEAN_UP, self._clean_up)
        return bool(undone["clean"])

    async def _look_back(self) -> Json:
        return {"touched": await self._desk.was_touched()}

    async def _clean_up(self) -> Json:
        await self._desk.begin_step(CLEAN_UP)
        report = self._desk.report(CLEAN_UP)
        message = ""
        try:
            async with asyncio.timeout(_CLEAN_UP_SECONDS):
                work = Work(self._job.spec, self._job.mark, await self._provider(), report)
                for name in steps.UNDO:
                    await execution.persist(partial(steps.step(name), work), report, _CLEAN_UP_SECONDS)
            report.log("Removed what this deployment had made")
        except TimeoutError:
            message = (
                f"Could not clean up within {_CLEAN_UP_SECONDS:.0f} s; delete the deployment to try again."
            )
        except IceShelvesError as error:
            message = storable(redact(f"Could not clean up: {error.message}", list(self._job.secrets)))
        except Exception:
            log.exception("operation %s, clean-up", self._job.operation_id)
            own = execution.internal_error(self._job.operation_id)
            message = f"Could not clean up: {own.message}"
        if message:
            report.log(message, "ERROR")
        status = StepStatus.FAILED if message else StepStatus.DONE
        await self._desk.end_step(CLEAN_UP, status, message)
        return {"clean": not message}


class _Counting:
    """A report that counts the guest's lines."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self.guest_lines = 0

    def log(self, message: str, level: Level = "INFO", source: Source = "engine") -> None:
        self.guest_lines += source == "guest"
        self._report.log(message, level, source)

    def progress(self, fraction: float | None, words: str) -> None:
        self._report.progress(fraction, words)


def _leaves_nothing(job: Job, outcome: Json) -> bool:
    """Whether what was made is to be removed: never where there was something good before."""
    if job.replaces:
        return False
    return outcome["status"] == OperationStatus.CANCELLED or job.on_failure == "cleanup"
