"""The agent's side of an operation: its journal on disk, and what it writes down for the server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final, Literal

from iceshelves.agent.disk import Disk, Held
from iceshelves.core import clock
from iceshelves.core.decode import decode
from iceshelves.core.errors import Conflict
from iceshelves.core.secret import redact
from iceshelves.core.text import storable
from iceshelves.deploy.job import MAKING_STEPS, Job
from iceshelves.deploy.messages import Claim, End, Entry
from iceshelves.deploy.spec import DeploymentSpec
from iceshelves.operations.engine import Json, Work
from iceshelves.operations.job import Ending, Level, Source
from iceshelves.operations.states import StepStatus
from iceshelves.providers.base import Mark

_MAX_LINE: Final = 16 * 1024
_MAX_WORDS: Final = 500
#: seconds for which lines are gathered before they are written
_GATHER: Final = 0.05


class DiskJournal:
    """The :class:`~iceshelves.operations.engine.Journal` of one claimed operation."""

    def __init__(self, disk: Disk, operation: str) -> None:
        self._disk = disk
        self._operation = operation

    async def once(self, name: str, work: Work) -> Json:
        """The recorded result, or that of doing the work now."""
        found = self._disk.result(self._operation, name)
        if found is None:
            found = await work()
            self._disk.record(self._operation, name, found)
        return found


class AgentDesk:
    """The :class:`~iceshelves.deploy.execution.Desk` of an agent.  ``wake`` has the server told soon."""

    def __init__(self, disk: Disk, job: Job, fence: int, wake: Callable[[], None]) -> None:
        self._disk = disk
        self._job = job
        #: raised when the server lets the agent claim again what it holds
        self.fence = fence
        self._wake = wake
        self._lines: list[Entry] = []
        self._progress: dict[str, Entry] = {}
        self._gathering: asyncio.TimerHandle | None = None
        self._verdict: asyncio.Future[bool] | None = None

    async def begin(self) -> bool:
        """It has begun already: claiming it is what began it."""
        return True

    async def begin_step(self, name: str) -> int:
        held = self._held()
        if name in MAKING_STEPS:
            self._disk.touch(self._job.operation_id)
        self._write(self._entry("step", name))
        return held.guest_lines

    async def end_step(self, name: str, status: StepStatus, message: str) -> None:
        self._progress.pop(name, None)
        self._write(self._entry("step-end", name, text=message[:_MAX_LINE], status=status.value))

    async def seconds_left(self) -> float:
        return self._held().deadline - time.time()

    async def cancel_requested(self) -> bool:
        return self._held().cancelled

    async def was_touched(self) -> bool:
        return self._held().touched

    async def end(self, ending: Ending) -> bool:
        """Tell the server until it has answered, however long it is away."""
        self._verdict = asyncio.get_running_loop().create_future()
        end = End(
            fence=self.fence,
            status=ending.status,
            error=ending.error,
            facts=ending.facts,
            clean=ending.clean,
        )
        self._disk.put_ending(self._job.operation_id, end)
        self._wake()
        return await self._verdict

    def decide(self, verdict: bool) -> None:
        """The server's answer to the end."""
        self._disk.take_ending(self._job.operation_id)
        if self._verdict is not None and not self._verdict.done():
            self._verdict.set_result(verdict)

    def report(self, step: str) -> StepReport:
        return StepReport(self, step, list(self._job.spec.secrets))

    def add_line(self, step: str, source: Source, level: Level, message: str) -> None:
        """Take a line; it is on disk soon."""
        self._lines.append(self._entry("log", step, text=message, level=level, source=source))
        self._gather()

    def set_progress(self, step: str, fraction: float | None, words: str) -> None:
        """Take a step's progress; only the latest is told."""
        bounded = None if fraction is None else min(1.0, max(0.0, fraction))
        self._progress[step] = self._entry("progress", step, text=words, fraction=bounded)
        self._gather()

    def _gather(self) -> None:
        if self._gathering is None:
            self._gathering = asyncio.get_running_loop().call_later(_GATHER, self.flush)

    def flush(self) -> None:
        """Write what was gathered."""
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        waiting = [*self._lines, *self._progress.values()]
        self._lines, self._progress = [], {}
        if waiting:
            self._disk.tell(waiting)
            self._wake()

    def _write(self, entry: Entry) -> None:
        self._lines.append(entry)
        self.flush()

    def _entry(self, kind: Literal["step", "progress", "log", "step-end"], step: str, **more: Any) -> Entry:
        return Entry(
            number=1,
            operation=self._job.operation_id,
            fence=self.fence,
            kind=kind,
            at=clock.to_text(clock.now()),
            step=step,
            **more,
        )

    def _held(self) -> Held:
        held = self._disk.look_up(self._job.operation_id)
        if held is None:
            raise Conflict("The operation is not this agent's any more.", code="operation_ended")
        return held


class StepReport:
    """A step's report: secrets are taken out before anything is written."""

    def __init__(self, desk: AgentDesk, step: str, secrets: list[str]) -> None:
        self._desk = desk
        self._step = step
        self._secrets = secrets

    def log(self, message: str, level: Level = "INFO", source: Source = "engine") -> None:
        """Add a line to the deployment's log."""
        shown = storable(redact(message, self._secrets)[:_MAX_LINE])
        self._desk.add_line(self._step, source, level, shown)

    def progress(self, fraction: float | None, words: str) -> None:
        """Say how far the step is."""
        shown = storable(redact(words, self._secrets)[:_MAX_WORDS])
        self._desk.set_progress(self._step, fraction, shown)


def job_of(claim: Claim) -> Job:
    """The job that a claim describes.  Tenant, deployment and cluster are the server's matter."""
    return Job(
        operation_id=claim.operation,
        tenant_id=0,
        deployment_id=0,
        cluster_id=0,
        limit=None,
        begun=True,
        kind=claim.kind,
        steps=tuple(claim.steps),
        revision=claim.revision,
        replaces=claim.replaces,
        on_failure=claim.on_failure,
        spec=decode(DeploymentSpec, claim.spec),
        mark=Mark(**claim.mark),
    )
