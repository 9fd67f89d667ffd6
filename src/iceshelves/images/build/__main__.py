"""The builder's process: a job on standard input, events on standard output, and its own way to the end.

It runs twice.  The outer one has no other task than to end the inner one, when it is told to stop or the time
is up, and to remove what is unfinished then.  The inner one is the first process of its own namespaces and
does the work.  Exit status: 0 built, 1 not built (an event says why).
"""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

import iceshelves
from iceshelves.core.errors import Cancelled, Failed, IceShelvesError, TimedOut
from iceshelves.images.build import kernel
from iceshelves.images.build.events import Broke, Event, Finished, Said, to_line
from iceshelves.images.build.isolation import ENVIRONMENT, isolated
from iceshelves.images.build.job import Job, parse_job
from iceshelves.images.build.keeping import trim
from iceshelves.images.build.kernel import die_with_parent
from iceshelves.images.build.stages import Build, finish
from iceshelves.images.build.workplace import Workplace, workplace

_INSIDE: Final = "--inside"
_TOLD: Final = 3
_MAX_JOB: Final = 1024 * 1024


def main(arguments: list[str]) -> int:
    """One build, or the inner half of one."""
    return _inside() if arguments == [_INSIDE] else _outside()


def _outside() -> int:
    die_with_parent()  # a server that is started again begins the build anew
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _stop)
    try:
        job = parse_job(sys.stdin.buffer.read(_MAX_JOB))
        with workplace(Path(job.cache), Path(job.output)) as place:
            return _supervise(job, place)
    except IceShelvesError as error:
        _tell(_broke(error))
        return 1


def _supervise(job: Job, place: Workplace) -> int:
    """Run the inner half to its end, which is its own or ours."""
    request = json.dumps({"job": job.to_json(), "name": place.name}).encode()
    argv = isolated([sys.executable, "-s", "-P", "-m", "iceshelves.images.build", _INSIDE])
    process = subprocess.Popen(
        argv, stdin=subprocess.PIPE, env=_environment(), preexec_fn=kernel.die_with_parent
    )
    try:
        process.communicate(request, timeout=job.limits.seconds)
    except subprocess.TimeoutExpired as error:
        raise TimedOut(
            f"The build did not finish within {job.limits.seconds:.0f} seconds.",
            code="build_timed_out",
            hint="Give it more time, or look in its log for what it waited for.",
        ) from error
    finally:
        process.kill()
        process.wait()
    if process.returncode not in (0, _TOLD):
        raise Failed(
            f"The builder was ended from outside (status {process.returncode}).",
            code="builder_killed",
            hint="Most often there is too little memory; give the machine more, or the build less to do.",
        )
    return 0 if process.returncode == 0 else 1


def _stop(_number: int, _frame: FrameType | None) -> NoReturn:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # tidying up is not to be stopped
    raise Cancelled("The build was cancelled.", code="build_cancelled")


def _environment() -> dict[str, str]:
    """What the inner half needs to find this same package, and nothing of ours."""
    return {**ENVIRONMENT, "PYTHONPATH": str(Path(iceshelves.__file__).parent.parent)}


def _inside() -> int:
    request = json.loads(sys.stdin.buffer.read(_MAX_JOB))
    job = parse_job(request["job"])
    place = Workplace(request["name"], Path(job.cache), Path(job.output))
    try:
        _limit(job)
        socket.sethostname("localhost")  # package scripts write it down
        result = Build(job, place, _tell).run()
        finish(place)
        _tidy(job, place)
    except IceShelvesError as error:
        _tell(_broke(error))
        return _TOLD
    except OSError as error:
        _tell(_broke(_from_system(error)))
        return _TOLD
    _tell(Finished(result))
    return 0


def _tidy(job: Job, place: Workplace) -> None:
    """Keep the cache within its bounds; that it fails is nothing to the image, which is there."""
    try:
        trim(place.cache, job.limits.cache * 3 // 4, place.name, lambda line: _tell(Said("pack", line)))
    except (IceShelvesError, OSError) as error:
        _tell(Said("pack", f"The cache could not be tidied up: {error}"))


def _limit(job: Job) -> None:
    """Bound each process of the build; the size of the whole tree is bounded by its file system."""
    for kind, value in (
        (resource.RLIMIT_AS, job.limits.memory),
        (resource.RLIMIT_FSIZE, job.limits.disk),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))
    os.umask(0o022)


def _from_system(error: OSError) -> Failed:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return Failed(
            "The build ran out of space.",
            code="disk_full",
            hint="Raise the build's disk limit, or free some space.",
        )
    return Failed(f"The build failed: {error}.", code="build_failed")


def _broke(error: IceShelvesError) -> Broke:
    return Broke(type(error).__name__, error.to_json())


def _tell(event: Event) -> None:
    """Write an event at once, whole: a parent that is gone ends the build here."""
    line = memoryview(f"{to_line(event)}\n".encode())
    while line:
        line = line[os.write(1, line) :]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
