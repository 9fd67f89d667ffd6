"""What a build is asked to do: a job, as one JSON document.

Paths are of the machine that builds.  A job says nothing of who asked and holds no credentials.
"""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from iceshelves.core.bounded import load_json
from iceshelves.core.decode import decode
from iceshelves.core.errors import InvalidInput

InstanceType: TypeAlias = Literal["container", "virtual-machine"]
#: ``release`` is small and slow to make, ``fast`` is for trying things out
Compression: TypeAlias = Literal["release", "fast"]
#: ``exact`` installs what the lock says or fails; ``refresh`` decides anew, and keeps a lock that is equal
LockUse: TypeAlias = Literal["exact", "refresh"]

_URI: Final = re.compile(r"(?:https?://[^\s\[\]'\"]{1,500}|(?:file|copy):/[^\s\[\]'\"]{1,500})")
_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9./_-]{0,99}")
_ARCHITECTURE: Final = re.compile(r"[a-z0-9]{2,16}")
_PLAIN_PATH: Final = re.compile(r"[A-Za-z0-9._+@/-]{1,300}")
_MAX_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Source:
    """An apt repository: one suite of it.  ``keyring`` is the file with the keys that may sign it."""

    uri: str
    suite: str
    components: tuple[str, ...] = ("main",)
    keyring: str | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What one build may use: wall-clock seconds, bytes written to its tree, bytes of memory a process."""

    seconds: float = 1800.0
    disk: int = 4 * 1024**3
    memory: int = 4 * 1024**3
    #: bytes that the cache may keep after the build
    cache: int = 20 * 1024**3


@dataclass(frozen=True)
class Job:
    """One image build.  ``recipe``, ``cache`` and ``output`` are folders, ``lock`` a file.

    Without ``sources`` the packages come from where this machine's apt would get them.  What is built
    appears in ``output``, whole or not at all.
    """

    recipe: str
    cache: str
    output: str
    architecture: str = "amd64"
    types: tuple[InstanceType, ...] = ("container",)
    compression: Compression = "release"
    sources: tuple[Source, ...] = ()
    lock: str | None = None
    lock_use: LockUse = "exact"
    limits: Limits = field(default_factory=Limits)

    def to_json(self) -> str:
        """The job as one line of JSON."""
        return json.dumps(dataclasses.asdict(self))


def parse_job(text: str | bytes) -> Job:
    """The job in ``text``.  Raises :class:`InvalidInput` (``invalid_job``, or what the JSON reader says)."""
    value: Any = load_json(text, source="the job", max_bytes=_MAX_BYTES)
    try:
        job = decode(Job, value)
    except ValueError as error:
        raise _invalid(f"the job cannot be read: {error}") from error
    _check(job)
    return job


def _check(job: Job) -> None:
    for name, path in (("recipe", job.recipe), ("cache", job.cache), ("output", job.output)):
        if not Path(path).is_absolute():
            raise _invalid(f"{name} is not an absolute path")
    if not _PLAIN_PATH.fullmatch(job.cache):  # it gets into lines of apt's and mmdebstrap's
        raise _invalid("the path of its cache holds characters other than letters, digits and . _ + @ -")
    if job.lock is not None and not Path(job.lock).is_absolute():
        raise _invalid("lock is not an absolute path")
    if not _ARCHITECTURE.fullmatch(job.architecture):
        raise _invalid(f"{job.architecture!r} is not the name of an architecture")
    if not job.types or len(set(job.types)) != len(job.types):
        raise _invalid("types names none, or one twice")
    if min(job.limits.seconds, job.limits.disk, job.limits.memory, job.limits.cache) <= 0:
        raise _invalid("a limit is not positive")
    for source in job.sources:
        check_source(source)


def check_source(source: Source) -> Source:
    """``source`` if it can stand in a line of apt's.  Raises :class:`InvalidInput` (``invalid_job``)."""
    if not _URI.fullmatch(source.uri):
        raise _invalid(f"{source.uri[:200]!r} is not the address of a package mirror")
    for word in (source.suite, *source.components):
        if not _WORD.fullmatch(word):
            raise _invalid(f"{word[:100]!r} cannot be a suite or component")
    if not source.components:
        raise _invalid(f"the source {source.suite} has no components")
    if source.keyring is not None and not re.fullmatch(r"/[A-Za-z0-9._+/-]{1,300}", source.keyring):
        raise _invalid(f"{source.keyring[:200]!r} cannot be the path of a keyring")
    return source


def _invalid(what: str) -> InvalidInput:
    return InvalidInput(
        f"This image cannot be built: {what}.", code="invalid_job", hint="Correct the job's settings."
    )
