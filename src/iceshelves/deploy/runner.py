"""Carries operations out: the workflow that the engine makes durable, and what surrounds a step.

The workflow is begin → steps → (clean up) → end, each done once.  A step's failure is a *result*, never an
exception, and so is a fault of our own: what reaches the engine as an exception is the end of the process.
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
from iceshelves.core.text import storable
from iceshelves.deploy import records, steps
from iceshelves.deploy.engine import Journal, Json
from iceshelves.deploy.logbook import Logbook
from iceshelves.deploy.providers import ProviderPool
from iceshelves.deploy.records import CLEAN_UP, Ending, Job
from iceshelves.deploy.slots import Slots, Wanted
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
            for operation_id in await self._read(records.cancel_requested, waiting):
                self.cancel(operation_id)

    async def carry_out(self, journal: Journal, operation_id: str) -> None:
        """The workflow.  Whatever happens in it, the operation ends."""
        cancel = self._cancels.setdefault(operation_id, asyncio.Event())
        try:
            job = await self._read(records.load, self._cipher, operation_id)
            slot = Wanted(job.cluster_id, job.limit or self._limit, job.begun)
            async with self._slots.of(slot, cancel):
                await self._carry_out(journal, job)
        except IceShelvesError as error:
            await self.give_up(operation_id, error)
        except Exception:
            log.exception("operation %s cannot go on", operation_id)
            await self.give_up(operation_id, _internal_error(operation_id))
        finally:
            self._cancels.pop(operation_id, None)

    async def give_up(self, operation_id: str, error: IceShelvesError) -> None:
        """End an operation that cannot go on, if it has not ended; what it made is left for a look."""
        deployment_id, was_open = await self._read(records.give_up, operation_id, error.to_json())
        if was_open:
            log.error("operation %s was given up: %s", operation_id, error)
            self._bus.publish(f"operation:{operation_id}", f"deployment:{deployment_id}")

    async def _carry_out(self, journal: Journal, job: Job) -> None:
        facts: Json = {}
        outcome = await journal.once("begin", partial(self._begin, job))
        begun = outcome["status"] == OperationStatus.RUNNING
        if begun:
            outcome = _outcome(OperationStatus.SUCCEEDED)
            for name in job.steps:
                outcome = await journal.once(name, partial(self._run_step, job, name, facts))
                facts = {**facts, **outcome["facts"]}
                if outcome["status"] != OperationStatus.SUCCEEDED:
                    break
        end = "end"
        if outcome["status"] == OperationStatus.SUCCEEDED:
            ending = Ending(OperationStatus.SUCCEEDED, None, facts, clean=False)
            ended = await journal.once(end, partial(self._end, job, ending))
            if ended.get("ended", True):
                return
            end = "end-cancelled"
            outcome = _outcome(OperationStatus.CANCELLED, Cancelled("Cancelled at its very end."))
        clean = await self._undo(journal, job, outcome, begun)
        ending = Ending(OperationStatus(outcome["status"]), outcome["error"], facts, clean)
        await journal.once(end, partial(self._end, job, ending))

    async def _undo(self, journal: Journal, job: Job, outcome: Json, begun: bool) -> bool:
        """Remove what a failed deployment made, if that is due; whether nothing of it is left."""
        if job.kind != "deploy":
            return False
        touched = await journal.once("look-back", partial(self._look_back, job))
        if not touched["touched"]:
            return True
        if not begun or not _leaves_nothing(job, outcome):
            return False
        undone = await journal.once(CLEAN_UP, partial(self._clean_up, job))
        return bool(undone["clean"])

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
        except Exception:
            log.exception("operation %s, step %s", job.operation_id, name)
            outcome = _outcome(OperationStatus.FAILED, _internal_error(job.operation_id))
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

    async def _look_back(self, job: Job) -> Json:
        return {"touched": await self._read(records.was_touched, job.deployment_id)}

    async def _clean_up(self, job: Job) -> Json:
        await self._read(records.begin_step, job.operation_id, CLEAN_UP)
        self._tell(job)
        report = self.logbook.report(job, CLEAN_UP)
        message = ""
        try:
            work = Work(job.spec, job.mark, await self._providers.get(job.cluster_id), report)
            async with asyncio.timeout(_CLEAN_UP_SECONDS):
                for name in steps.UNDO:
                    await self._persist(work, name, _CLEAN_UP_SECONDS)
            report.log("Removed what this deployment had made")
        except TimeoutError:
            message = (
                f"Could not clean up within {_CLEAN_UP_SECONDS:.0f} s; delete the deployment to try again."
            )
        except IceShelvesError as error:
            message = storable(redact(f"Could not clean up: {error.message}", list(job.spec.secrets)))
        except Exception:
            log.exception("operation %s, clean-up", job.operation_id)
            message = f"Could not clean up: {_internal_error(job.operation_id).message}"
        if message:
            report.log(message, "ERROR")
        await self.logbook.flush()
        status = StepStatus.FAILED if message else StepStatus.DONE
        await self._read(records.end_step, job.operation_id, CLEAN_UP, status, message)
        self._tell(job)
        return {"clean": not message}

    async def _end(self, job: Job, ending: Ending) -> Json:
        await self.logbook.flush()
        ended = await self._read(records.end, job, ending)
        self._tell(job)
        if ended and self._goes_back(job, ending):
            await self._go_back(job)
        return {"ended": ended}

    async def _go_back(self, job: Job) -> None:
        while True:
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

    def _goes_back(self, job: Job, ending: Ending) -> bool:
        """Whether a later revision's failure is answered by a roll-back to the last good one."""
        if job.kind != "deploy" or not job.replaces or ending.status is OperationStatus.SUCCEEDED:
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


def _leaves_nothing(job: Job, outcome: Json) -> bool:
    """Whether what was made is to be removed: never where there was something good before."""
    if job.replaces:
        return False
    return outcome["status"] == OperationStatus.CANCELLED or job.on_failure == "cleanup"


def _internal_error(operation_id: str) -> Failed:
    return Failed(
        f"IceShelves met an error of its own in operation {operation_id}.",
        code="internal_error",
        hint="The server's log has the details under this id; please report it.",
    )


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
    """``error`` as it may be kept and shown; its code is ours and stays as it is."""
    shown: Json = _redact_json(error.to_json(), list(job.spec.secrets))
    return {**shown, "code": error.code, "docs": error.docs}


def _redact_json(value: Any, secrets: list[str]) -> Any:
    if isinstance(value, str):
        return storable(redact(value, secrets))
    if isinstance(value, dict):
        return {key: _redact_json(inner, secrets) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_redact_json(inner, secrets) for inner in value]
    return value
