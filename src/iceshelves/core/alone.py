"""One process to a folder: a lock that the kernel gives back, however the process ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from iceshelves.core.errors import Conflict


@contextmanager
def alone(descriptor: int, refusal: Conflict) -> Iterator[None]:
    """Hold the lock of an open file or folder, closed at the end.  Raises ``refusal`` if another has it."""
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise refusal from error
        yield
    finally:
        os.close(descriptor)
