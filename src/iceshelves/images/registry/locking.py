"""One writer at a time, among all processes of a machine.  The kernel gives a dead writer's lock back."""

from __future__ import annotations

import fcntl
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from iceshelves.core.errors import Temporary

#: Seconds; a writer holds the lock for milliseconds, a large fill for a few seconds.
_PATIENCE: Final = 120.0
_SHORTEST: Final = 0.001
_LONGEST: Final = 0.02


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Hold the lock at ``path``.  Raises :class:`Temporary` ``registry_busy`` after two minutes."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _take(descriptor)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    pause = _SHORTEST
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise Temporary(
                    "Another publisher has held the registry for two minutes.",
                    code="registry_busy",
                    hint="Look whether one hangs, and end it; nothing is lost by that.",
                    delay=30.0,
                ) from error
        else:
            return
        time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  (not for secrets)
        pause = min(2 * pause, _LONGEST)
