"""Carrying an operation out: the workflow that an engine makes durable, and what surrounds a step.

The workflow is begin → steps → (undo) → end, each done once.  A step's failure is a *result*, never an
exception, and so is a fault of our own: what reaches the engine as an exception is the end of the process.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Final, Protocol

from iceshelves.core.errors import Cancelled, Failed, IceShelvesError, Temporary, TimedOut
from iceshelves.core.log import logger
from iceshelves.core.secret import redact
from iceshelves.core.text import storable
from iceshelves.operations.engine import Journal, Json
from iceshelves.operations.job import Ending, Job, Report
from iceshelves.operations.states import OperationStatus, StepStatus

#: seconds for which a step is tried again while the other side is away; then it has failed
_PATIENCE: Final = 60.0
_LONGEST_PAUSE: Final = 5.0

log = logger(__name__)


class Desk(Protocol):
    """Where an execution asks how things stand and writes down how they go, for one operation.

    Every method can be called again with the same arguments, and waits while whoever keeps the records is
    away.
    """

    async def begin(self) -> bool:
        """Whether it may begin: not if it was cancelled before."""
        ...

    async def begin_step(self, name: str) -> int:
        """Write down that a step begins; the number of guest lines that its log holds already.

        Raises ``Conflict`` ``operation_ended``: an operation that was given up does nothing more.
        """
        ...

    async def end_step(self, name: str, status: StepStatus, message: str) -> None:
        """Write down, after everything that it reported, how a step ended."""
        ...

    async def seconds_left(self) -> float:
        """Until the operation's deadline."""
        ...

    async def cancel_requested(self) -> bool:
        """Whether somebody asked it to stop."""
        ...

    async def end(self, ending: Ending) -> bool:
        """Write down the end.  False if it succeeded although it was asked to stop: it is undone first."""
        ...

    def report(self, step: str) -> Report:
        """Where ``step`` says how it goes."""
        ...


class Execution(ABC):
    """One operation being carried out.  Setting ``cancel`` interrupts the step that runs."""

    #: steps that are tried again for as long as the operation has
    patient_steps: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, job: Job, desk: Desk, cancel: asyncio.Event) -> None:
        self._job = job
        self._desk = desk
        self._cancel = cancel

    @abstractmethod
    async def do(self, name: str, facts: Json, guest_lines: int) -> Json:
        """Do the step ``name`` once; what is durable of its result.

        ``facts`` are the results of the steps before, ``guest_lines`` those that an earlier try has logged.
        """

    @abstractmethod
    async def undo(self, journal: Journal, outcome: Json, begun: bool) -> bool:
        """Remove what a failed operation made, where that is due; whether nothing of it is left."""

    async def run(self, journal: Journal) -> None:
        """Carry it out, or go on where ``journal`` says that it was cut off."""
        facts: Json = {}
        outcome = await journal.once("begin", self._begin)
        begun = outcome["status"] == OperationStatus.RUNNING
        if begun:
            outcome = _outcome(OperationStatus.SUCCEEDED)
            for name in self._job.steps:
                outcome = await journal.once(name, partial(self._run_step, name, facts))
                facts = {**facts, **outcome["facts"]}
                if outcome["status"] != OperationStatus.SUCCEEDED:
                    break
        end = "end"
        if outcome["status"] == OperationStatus.SUCCEEDED:
            ending = Ending(OperationStatus.SUCCEEDED, None, facts, clean=False)
            ended = await journal.once(end, partial(self._end, ending))
            if ended.get("ended", True):
                return
            end = "end-cancelled"
            outcome = _outcome(OperationStatus.CANCELLED, Cancelled("Cancelled at its very end."))
        clean = await self.undo(journal, outcome, begun)
        ending = Ending(OperationStatus(outcome["status"]), outcome["error"], facts, clean)
        await journal.once(end, partial(self._end, ending))

    async def _begin(self) -> Json:
        if await self._desk.begin():
            return _outcome(OperationStatus.RUNNING)
        return _outcome(OperationStatus.CANCELLED, Cancelled("Cancelled before it began."))

    async def _end(self, ending: Ending) -> Json:
        return {"ended": await self._desk.end(ending)}

    async def _run_step(self, name: str, facts: Json) -> Json:
        seen = await self._desk.begin_step(name)
        started = time.monotonic()
        try:
            found = await self._attempt(name, facts, seen)
            outcome = _outcome(OperationStatus.SUCCEEDED, facts=found)
        except IceShelvesError as error:
            outcome = _outcome(_status_of(error), _redacted(error, self._job.secrets))
        except Exception:
            log.exception("operation %s, step %s", self._job.operation_id, name)
            outcome = _outcome(OperationStatus.FAILED, internal_error(self._job.operation_id))
        status = _step_status(outcome)
        message = outcome["error"]["message"] if outcome["error"] else ""
        if message:
            self._log_failure(name, outcome["error"], status)
        await self._desk.end_step(name, status, message)
        took = time.monotonic() - started
        log.debug("%s %s: %s after %.2f s", self._job.operation_id, name, status, took)
        return outcome

    def _log_failure(self, name: str, error: Json, status: StepStatus) -> None:
        report = self._desk.report(name)
        report.log(error["message"], "WARNING" if status is StepStatus.CANCELLED else "ERROR")
        for line in error["details"].get("guest", ()):
            report.log(f"  guest: {line}", "ERROR")

    async def _attempt(self, name: str, facts: Json, guest_lines: int) -> Json:
        """Run the step until it succeeds, fails, is cancelled or its time is over."""
        left = await self._desk.seconds_left()
        if await self._desk.cancel_requested():
            self._cancel.set()
        patience = float("inf") if name in self.patient_steps else _PATIENCE
        trying = persist(partial(self.do, name, facts, guest_lines), self._desk.report(name), patience)
        return await _interruptible(trying, self._cancel, left, name)


async def persist(step: Callable[[], Awaitable[Mapping[str, Any]]], report: Report, patience: float) -> Json:
    """Run ``step`` again while it fails only for now, for ``patience`` seconds; then it has failed."""
    started = time.monotonic()
    pause = 0.0
    while True:
        try:
            return dict(await step())
        except Temporary as error:
            if time.monotonic() - started > patience:
                raise Failed(
                    f"{error.message} (tried for {patience:.0f} s)",
                    code=error.code,
                    hint=error.hint,
                    details=error.details,
                ) from error
            if pause >= 1.0:
                report.log(f"Trying again: {error.message}", "WARNING")
            pause = min(max(pause * 2, error.delay / 10), _LONGEST_PAUSE)
            report.progress(None, f"waiting: {error.message}")
        await asyncio.sleep(pause)


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
        if not task.cancelled() and task.exception() is None:
            return task.result()  # it could not be stopped any more; the end of the operation decides
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


def internal_error(operation_id: str) -> Failed:
    """A fault of our own, as whoever waits for the operation is told of it."""
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


def _redacted(error: IceShelvesError, secrets: Sequence[str]) -> Json:
    """``error`` as it may be kept and shown; its code is ours and stays as it is."""
    shown: Json = _redact_json(error.to_json(), list(secrets))
    return {**shown, "code": error.code, "docs": error.docs}


def _redact_json(value: Any, secrets: list[str]) -> Any:
    if isinstance(value, str):
        return storable(redact(value, secrets))
    if isinstance(value, dict):
        return {key: _redact_json(inner, secrets) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_redact_json(inner, secrets) for inner in value]
    return value
