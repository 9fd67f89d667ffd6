"""Carries operations out: the workflow that the engine makes durable, and what surrounds a step.

The workflow is begin → steps → (clean up) → end, each done once.  A step's failure is a *result*, never an
exception: what reaches the engine as an exception is only the end of the process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from iceshelves.access.cipher import Cipher
from iceshelves.core.bus import Bus
from iceshelves.core.errors import Cancelled, Failed, IceShelvesError, Temporary, TimedOut
from iceshelves.core.log import logger
from iceshelves.core.secret import redact
from iceshelves.deploy import records, steps
from iceshelves.deploy.engine import Journal, Json
from iceshelves.deploy.logbook import Logbook
from iceshelves.deploy.providers import ProviderPool
from iceshelves.deploy.records import CLEAN_UP, Ending, Job
from iceshelves.deploy.slots import Slots
from iceshelves.deploy.states import OperationStatus, StepStatus
from iceshelves.deploy.work import Work
from iceshelves.store.database import Database

#: seconds for which a step is tried again while the other side is away; then it has failed
_PATIENCE: Final = 60.0
#: a guest may take as long to come up as the operation has
_PATIENT_STEPS: Final = frozenset({"guest"})
_CLEAN_UP_SECONDS: Final = 300.0
_LONGEST_PAUSE: Final = 5.0

log = logger(__name__)


class Runner:
    """One per process; lives on the event loop."""

    def __init__(
        self,
        database: Database,
        cipher: Cipher,
        bus: Bus,
        providers: ProviderPool,
        slots: Slots,
        follow_up: Callable[[Job], None],
    ) -> None:
        self._database = database
        self._cipher = cipher
        self._bus = bus
        self._providers = providers
        self._slots = slots
        self._follow_up = follow_up
        self.logbook = Logbook(database, bus)
        self._cancels: dict[str, asyncio.Event] = {}

    def cancel(self, operation_id: str) -> None:
        """Interrupt the step that runs, if the operation runs here."""
        if (event := self._cancels.get(operation_id)) is not None:
            event.set()

    async def watch_cancels(self) -> None:
        """Notice what was cancelled through another server."""
        while True:
            await asyncio.sleep(1.0)
            waiting = [key for key, event in self._cancels.items() if not event.is_set()]
            if not waiting:
                continue
            try:
                for operation_id in await self._read(records.cancel_requested, waiting):
                    self.cancel(operation_id)
            except Temporary as error:
                log.warning("looking for cancelled operations failed: %s", error)

    async def carry_out(self, journal: Journal, operation_id: str) -> None:
        """The workflow."""
        self._cancels[operation_id] = asyncio.Event()
        try:
            job = await self._read(records.load, self._cipher, operation_id)
            async with self._slots.of(job.cluster_id, self._cancels[operation_id]):
                await self._carry_out(journal, job)
        finally:
            del self._cancels[operation_id]

    async def _carry_out(self, journal: Journal, job: Job) -> None:
        facts: Json = {}
        outcome = await journal.once("begin", partial(self._begin, job))
        if outcome["status"] == OperationStatus.RUNNING:
            for name in job.steps:
                outcome = await journal.once(name, partial(self._run_step, job, name, facts))
                facts = {**facts, **outcome["facts"]}
                if outcome["status"] != OperationStatus.SUCCEEDED:
                    break
        clean = False
        if outcome["status"] != OperationStatus.SUCCEEDED and job.kind == "deploy":
            touched = await journal.once("look-back", partial(self._look_back, job))
            clean = not touched["touched"]
        if not clean and self._leaves_nothing(job, outcome):
            undone = await journal.once(CLEAN_UP, partial(self._clean_up, job))
            clean = undone["clean"]
        ending = Ending(OperationStatus(outcome["status"]), outcome["error"], facts, clean)
        await journal.once("end", partial(self._end, job, ending))

    async def _begin(self, job: Job) -> Json:
        started = await self._read(records.begin, job.operation_id)
        self._tell(job)
        if started:
            return _outcome(OperationStatus.RUNNING)
        return _outcome(OperationStatus.CANCELLED, Cancelled("Cancelled before it began."))

    async def _run_step(self, job: Job, name: str, facts: Json) -> Json:
        seen = await self._read(records.begin_step, job.operation_id, name)
        self._tell(job)
        started = time.monotonic()
        try:
            found = await self._attempt(job, name, facts, seen)
            outcome = _outcome(OperationStatus.SUCCEEDED, facts=found)
        except IceShelvesError as error:
            outcome = _outcome(_status_of(error), _redacted(error, job))
        status = _step_status(outcome)
        message = outcome["error"]["message"] if outcome["error"] else ""
        if message:
            self._log_failure(job, name, outcome["error"], status)
        await self.logbook.flush()
        await self._read(records.end_step, job.operation_id, name, status, message)
        self._tell(job)
        log.debug("%s %s: %s after %.2f s", job.operation_id, name, status, time.monotonic() - started)
        return outcome

    def _log_failure(self, job: Job, name: str, error: Json, status: StepStatus) -> None:
        report = self.logbook.report(job, name)
        report.log(error["message"], "WARNING" if status is StepStatus.CANCELLED else "ERROR")
        for line in error["details"].get("guest", ()):
            report.log(f"  guest: {line}", "ERROR")

    async def _attempt(self, job: Job, name: str, facts: Json, guest_lines: int) -> Json:
        """Run the step until it succeeds, fails, is cancelled or its time is over."""
        left = await self._read(records.seconds_left, job.operation_id)
        cancel = self._cancels[job.operation_id]
        if await self._read(records.cancel_requested, [job.operation_id]):
            cancel.set()
        work = Work(
            spec=job.spec,
            mark=job.mark,
            provider=await self._providers.get(job.cluster_id),
            report=self.logbook.report(job, name),
            facts=facts,
            guest_lines=guest_lines,
        )
        patience = float("inf") if name in _PATIENT_STEPS else _PATIENCE
        return await _interruptible(self._persist(work, name, patience), cancel, left, name)

    async def _persist(self, work: Work, name: str, patience: float) -> Json:
        """Run the step again while it fails only for now."""
        step = steps.step(name)
        started = time.monotonic()
        pause = 0.0
        while True:
            try:
                return dict(await step(work))
            except Temporary as error:
                if time.monotonic() - started > patience:
                    raise Failed(
                        f"{error.message} (tried for {patience:.0f} s)",
                        code=error.code,
                        hint=error.hint,
                        details=error.details,
                    ) from error
                if pause >= 1.0:
                    work.report.log(f"Trying again: {error.message}", "WARNING")
                pause = min(max(pause * 2, error.delay / 10), _LONGEST_PAUSE)
                work.report.progress(None, f"waiting: {error.message}")
            await asyncio.sleep(pause)

    def _leaves_nothing(self, job: Job, outcome: Json) -> bool:
        """Whether what was made is to be removed: never a revision that replaces an earlier one."""
        if job.kind != "deploy" or job.revision > 1:
            return False
        if outcome["status"] == OperationStatus.CANCELLED:
            return True
        return outcome["status"] != OperationStatus.SUCCEEDED and job.on_failure == "cleanup"

    async def _look_back(self, job: Job) -> Json:
        return {"touched": await self._read(records.was_touched, job.deployment_id)}

    async def _clean_up(self, job: Job) -> Json:
        await self._read(records.begin_step, job.operation_id, CLEAN_UP)
        self._tell(job)
        report = self.logbook.report(job, CLEAN_UP)
        work = Work(job.spec, job.mark, await self._providers.get(job.cluster_id), report)
        message = ""
        try:
            async with asyncio.timeout(_CLEAN_UP_SECONDS):
                for name in steps.UNDO:
                    await self._persist(work, name, _CLEAN_UP_SECONDS)
            report.log("Removed what this deployment had made")
        except TimeoutError:
            message = (
                f"Could not clean up within {_CLEAN_UP_SECONDS:.0f} s; delete the deployment to try again."
            )
        except IceShelvesError as error:
            message = f"Could not clean up: {error.message}"
        if message:
            report.log(message, "ERROR")
        await self.logbook.flush()
        status = StepStatus.FAILED if message else StepStatus.DONE
        await self._read(records.end_step, job.operation_id, CLEAN_UP, status, message)
        self._tell(job)
        return {"clean": not message}

    async def _end(self, job: Job, ending: Ending) -> Json:
        await self.logbook.flush()
        await self._read(records.end, job, ending)
        self._tell(job)
        if self._goes_back(job, ending):
            await asyncio.to_thread(self._follow_up, job)
        return {}

    def _goes_back(self, job: Job, ending: Ending) -> bool:
        """Whether a later revision's failure is answered by a roll-back to the last good one."""
        if job.kind != "deploy" or job.revision == 1 or ending.status is OperationStatus.SUCCEEDED:
            return False
        touched = "volumes" in ending.facts  # the step before the first change to the instance
        return touched and (job.on_failure == "cleanup" or ending.status is OperationStatus.CANCELLED)

    def _tell(self, job: Job) -> None:
        self._bus.publish(f"operation:{job.operation_id}", f"deployment:{job.deployment_id}")

    async def _read(self, function: Callable[..., Any], *arguments: object) -> Any:
        """Run a transaction of ``records`` in a thread; a database that is away is waited for."""
        while True:
            try:
                return await asyncio.to_thread(function, self._database, *arguments)
            except Temporary as error:
                log.warning("the database is away, trying again: %s", error)
                await asyncio.sleep(error.delay)


async def _interruptible(work: Any, cancel: asyncio.Event, seconds: float, name: str) -> Json:
    """The result of ``work``, unless ``cancel`` is set or ``seconds`` have passed before."""
    task: asyncio.Task[Json] = asyncio.ensure_future(work)
    asked = asyncio.ensure_future(cancel.wait())
    try:
        await asyncio.wait({task, asked}, timeout=max(0.0, seconds), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if cancel.is_set():
            raise Cancelled(f"Cancelled during {name}.")
        raise TimedOut(
            f"The deadline passed during {name}.",
            code="deadline_passed",
            hint="Give it more time with --timeout, or look in the log for what it waited for.",
        )
    finally:
        asked.cancel()
        if not task.done():  # the process is stopping
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _outcome(
    status: OperationStatus, error: IceShelvesError | Json | None = None, facts: Json | None = None
) -> Json:
    shown = error.to_json() if isinstance(error, IceShelvesError) else error
    return {"status": status.value, "error": shown, "facts": facts or {}}


def _status_of(error: IceShelvesError) -> OperationStatus:
    if isinstance(error, Cancelled):
        return OperationStatus.CANCELLED
    if isinstance(error, TimedOut) and error.code == "deadline_passed":
        return OperationStatus.TIMEOUT
    return OperationStatus.FAILED


def _step_status(outcome: Json) -> StepStatus:
    return {
        OperationStatus.SUCCEEDED: StepStatus.DONE,
        OperationStatus.CANCELLED: StepStatus.CANCELLED,
    }.get(outcome["status"], StepStatus.FAILED)


def _redacted(error: IceShelvesError, job: Job) -> Json:
    secrets = list(job.spec.secrets)
    return _redact_json(error.to_json(), secrets)  # type: ignore[no-any-return]


def _redact_json(value: Any, secrets: list[str]) -> Any:
    if isinstance(value, str):
        return redact(value, secrets)
    if isinstance(value, dict):
        return {key: _redact_json(inner, secrets) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_redact_json(inner, secrets) for inner in value]
    return value
