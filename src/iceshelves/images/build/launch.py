"""The asynchronous side of the builder: start its process, follow its events, stop it.

The process gets nothing of this one but a job; what it says is checked like anything from outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final, TypeAlias

import iceshelves
from iceshelves.core import errors
from iceshelves.core.errors import Failed, IceShelvesError, TimedOut
from iceshelves.images.build.events import MAX_LINE, Broke, BuildResult, Event, Finished, from_line
from iceshelves.images.build.isolation import ENVIRONMENT
from iceshelves.images.build.job import Job

PROGRAM: Final = (sys.executable, "-s", "-P", "-m", "iceshelves.images.build")

OnEvent: TypeAlias = Callable[[Event], None]

#: seconds beyond the job's own limit until the process is taken for one that hangs, and for it to tidy up
_GRACE: Final = 60.0
_POLL: Final = 0.02
_MAX_STDERR: Final = 64 * 1024


async def build(job: Job, on_event: OnEvent) -> BuildResult:
    """Build in a process of its own; ``on_event`` hears each event as it happens.

    Cancelling stops the build and waits until it has tidied up.  Raises what the builder says (an error of
    the same kind and code), :class:`TimedOut` (``build_timed_out``) and :class:`Failed` (``builder_crashed``,
    ``builder_garbled``).
    """
    async with _running(job) as (process, complaints):
        try:
            async with asyncio.timeout(job.limits.seconds + _GRACE):
                ended = await _follow(process, on_event)
        except TimeoutError as error:
            raise TimedOut("The builder does not answer and was stopped.", code="build_timed_out") from error
    if isinstance(ended, Finished):
        return ended.result
    if isinstance(ended, Broke):
        raise _error(ended)
    raise Failed(
        f"The builder ended without a word: {complaints.result()}",
        code="builder_crashed",
        hint="The server's log may tell more; please report this.",
    )


@contextlib.asynccontextmanager
async def _running(job: Job) -> AsyncIterator[tuple[asyncio.subprocess.Process, asyncio.Task[str]]]:
    """The process, and what it complains of; ended, both of them, afterwards."""
    process = await asyncio.create_subprocess_exec(
        *PROGRAM,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=MAX_LINE,
        env={**ENVIRONMENT, "PYTHONPATH": str(Path(iceshelves.__file__).parent.parent)},
        start_new_session=True,
    )  # fmt: skip
    complaints = asyncio.create_task(_complaints(process))
    try:
        assert process.stdin is not None  # noqa: S101  (asked for above)
        process.stdin.write(job.to_json().encode())
        with contextlib.suppress(ConnectionError):  # it ended at once; its last event says why
            await process.stdin.drain()
        process.stdin.close()
        yield process, complaints
    finally:
        await asyncio.shield(_end(process))
        await complaints


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ask it to stop, wait until it has tidied up, and end what is left of its session."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
    drained = asyncio.create_task(_drain(process.stdout))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_GRACE):
            # wait() would wait for everybody who holds the other end of a pipe
            while process.returncode is None:  # noqa: ASYNC110  (asyncio has no event for this)
                await asyncio.sleep(_POLL)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
    await drained


async def _drain(stream: asyncio.StreamReader | None) -> None:
    """Read on, so that it is not held up by a full pipe while it tidies up."""
    while stream is not None and await stream.read(MAX_LINE):
        pass


async def _follow(process: asyncio.subprocess.Process, on_event: OnEvent) -> Event | None:
    """Pass events on until the first that ends the build, or the output does."""
    assert process.stdout is not None  # noqa: S101  (asked for above)
    while line := await _line(process.stdout):
        event = from_line(line)
        on_event(event)
        if isinstance(event, Finished | Broke):
            return event
    return None


async def _line(stream: asyncio.StreamReader) -> bytes:
    try:
        return await stream.readline()
    except ValueError as error:  # longer than the limit
        raise Failed("The builder said something that is no event.", code="builder_garbled") from error


async def _complaints(process: asyncio.subprocess.Process) -> str:
    """The last line on its standard error, where only an unforeseen end writes to."""
    assert process.stderr is not None  # noqa: S101  (asked for above)
    kept = b""
    while chunk := await process.stderr.read(4096):
        kept = (kept + chunk)[-_MAX_STDERR:]
    lines = kept.decode(errors="replace").strip().splitlines()
    return lines[-1][:500] if lines else "nothing on its error output."


def _error(broke: Broke) -> IceShelvesError:
    """The error that the builder met, as one of this process."""
    kind = getattr(errors, broke.kind, Failed)
    if not (isinstance(kind, type) and issubclass(kind, IceShelvesError)):
        kind = Failed
    told = broke.error
    details = told.get("details")
    return kind(
        str(told.get("message", "The build failed."))[:2000],
        code=str(told.get("code", "build_failed"))[:100],
        hint=None if told.get("hint") is None else str(told["hint"])[:2000],
        details=details if isinstance(details, dict) else None,
    )
