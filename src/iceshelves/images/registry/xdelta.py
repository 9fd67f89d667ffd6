"""The one way to run xdelta3, with which Incus and LXD apply deltas too."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Final

from iceshelves.core.errors import Failed, TimedOut
from iceshelves.core.process import run

PROGRAM: Final = "xdelta3"
_DEADLINE: Final = 1800.0
#: Bytes of the base that are searched at a time; its default is too short for most images.
_LEAST_WINDOW: Final = 64 * 1024 * 1024
_MOST_WINDOW: Final = 512 * 1024 * 1024


def is_installed() -> bool:
    """Whether deltas can be made and checked here."""
    return shutil.which(PROGRAM) is not None


def encode(base: Path, target: Path, delta: Path) -> None:
    """Write the delta from ``base`` to ``target``.  Raises :class:`Failed`, :class:`TimedOut`.

    Without secondary compression: what squashfs leaves is compressed already.
    """
    window = min(max(base.stat().st_size, _LEAST_WINDOW), _MOST_WINDOW)
    options = ["-e", "-9", "-S", "none", "-A", "-f", "-B", str(window)]  # -A: no file names in it
    run([PROGRAM, *options, "-s", str(base), str(target), str(delta)], timeout=_DEADLINE).checked()


def decode(base: Path, delta: Path, target: Path) -> None:
    """Write what ``delta`` makes of ``base``, as Incus does.  Raises :class:`Failed`, :class:`TimedOut`."""
    run([PROGRAM, "-d", "-f", "-s", str(base), str(delta), str(target)], timeout=_DEADLINE).checked()


def gives(base: Path, delta: Path, sha256: str, draft: Path) -> bool:
    """Whether ``delta`` makes of ``base`` what has the hash ``sha256``; ``draft`` is written meanwhile."""
    try:
        decode(base, delta, draft)
        with draft.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == sha256
    except (Failed, TimedOut):
        return False
    finally:
        draft.unlink(missing_ok=True)
