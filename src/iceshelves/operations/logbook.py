"""Gathers what running steps say, and writes it in batches: one transaction for many lines of many guests."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from typing import Final, NamedTuple

import sqlalchemy as sa

from iceshelves.core import clock
from iceshelves.core.bus import Bus
from iceshelves.core.errors import Temporary
from iceshelves.core.log import logger
from iceshelves.core.secret import redact
from iceshelves.core.text import storable
from iceshelves.operations.job import Job, Level, Source
from iceshelves.store.database import Database
from iceshelves.store.models import LogLine, Operation, Step

#: how long a line may wait for others; also how often progress is written at most
_GATHER_SECONDS: Final = 0.05
_MAX_MESSAGE: Final = 16 * 1024
#: beyond this, lines are dropped and counted: a database that is away must not fill the memory
_MAX_WAITING: Final = 50_000

log = logger(__name__)


class _Line(NamedTuple):
    job: Job
    step: str
    source: Source
    level: Level
    message: str
    moment: datetime


class Logbook:
    """One per process; lives on the event loop."""

    def __init__(self, database: Database, bus: Bus) -> None:
        self._database = database
        self._bus = bus
        self._lines: list[_Line] = []
        self._progress: dict[tuple[str, str], tuple[Job, float | None, str]] = {}
        self._dropped = 0
        self._wanted = asyncio.Event()
        self._writing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        # an engine may shut the loop's own threads down before the last line is written
        self._thread = ThreadPoolExecutor(1, "logbook")

    def start(self) -> None:
        """Begin to write in the background."""
        self._task = asyncio.create_task(self._write_for_ever())

    async def stop(self) -> None:
        """Write what is left."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.flush()
        self._thread.shutdown()

    def report(self, job: Job, step: str) -> StepReport:
        """Where ``step`` says how it goes."""
        return StepReport(self, job, step)

    def add(self, job: Job, step: str, source: Source, level: Level, message: str) -> None:
        """Take a line; it is written soon."""
        if len(self._lines) >= _MAX_WAITING:
            self._dropped += 1
            return
        message = storable(redact(message, list(job.secrets))[:_MAX_MESSAGE])
        self._lines.append(_Line(job, step, source, level, message, clock.now()))
        self._wanted.set()

    def set_progress(self, job: Job, step: str, fraction: float | None, words: str) -> None:
        """Take a step's progress; only the latest is written."""
        shown = storable(redact(words, list(job.secrets))[:500])
        self._progress[job.operation_id, step] = (job, fraction, shown)
        self._wanted.set()

    async def flush(self) -> None:
        """Write everything that was taken so far."""
        async with self._writing:
            lines, self._lines = self._lines, []
            progress, self._progress = self._progress, {}
            if not lines and not progress:
                return
            try:
                await _to_its_end(self._thread.submit(self._write, lines, progress))
            except Temporary as error:
                self._lines = lines + self._lines
                log.warning("%d log lines wait: %s", len(self._lines), error)
                return
            except Exception:  # whatever is wrong with them, later lines must not suffer
                log.exception("%d log lines were lost", len(lines))
                return
        if self._dropped:
            log.warning("%d log lines were dropped while the database was away", self._dropped)
            self._dropped = 0
        jobs = {line.job.operation_id: line.job for line in lines}
        jobs |= {job.operation_id: job for job, _, _ in progress.values()}
        for job in jobs.values():
            self._bus.publish(*job.topics)

    def _write(
        self, lines: list[_Line], progress: dict[tuple[str, str], tuple[Job, float | None, str]]
    ) -> None:
        with self._database.write() as session:
            if lines:
                session.execute(sa.insert(LogLine), [_row(line) for line in lines])
            for (operation_id, name), (_, fraction, words) in progress.items():
                session.execute(
                    sa.update(Step)
                    .where(Step.operation_id == operation_id, Step.name == name)
                    .values(progress=fraction, message=words)
                )
                session.execute(
                    sa.update(Operation)
                    .where(Operation.id == operation_id)
                    .values(version=Operation.version + 1)
                )

    async def _write_for_ever(self) -> None:
        while True:
            await self._wanted.wait()
            await asyncio.sleep(_GATHER_SECONDS)
            self._wanted.clear()
            await self.flush()
            if self._lines:
                await asyncio.sleep(1.0)
                self._wanted.set()


async def _to_its_end(writing: Future[None]) -> None:
    """Wait for a write even when cancelled: whoever goes on then has to find what it wrote."""
    written = asyncio.wrap_future(writing)
    try:
        await asyncio.shield(written)
    except asyncio.CancelledError:
        await asyncio.wait([written])
        raise


class StepReport:
    """A step's :class:`~iceshelves.operations.job.Report`."""

    def __init__(self, logbook: Logbook, job: Job, step: str) -> None:
        self._logbook = logbook
        self._job = job
        self._step = step

    def log(self, message: str, level: Level = "INFO", source: Source = "engine") -> None:
        """Add a line to the operation's log."""
        self._logbook.add(self._job, self._step, source, level, message)

    def progress(self, fraction: float | None, words: str) -> None:
        """Say how far the step is."""
        self._logbook.set_progress(self._job, self._step, fraction, words)


def _row(line: _Line) -> dict[str, object]:
    return {
        "tenant_id": line.job.tenant_id,
        "deployment_id": line.job.deployment_id,
        "operation_id": line.job.operation_id,
        "step": line.step,
        "source": line.source,
        "log_level": line.level,
        "message": line.message,
        "timestamp": line.moment,
    }
