"""Keeping the cache within its limit: what was not used the longest goes, bases and packages alike."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from iceshelves.images.build.base import LOCKED
from iceshelves.images.build.commands import Say


@dataclass(frozen=True, slots=True)
class _Kept:
    """A base's folder or a package's file; ``used`` in seconds since 1970, ``size`` in bytes."""

    path: Path
    used: float
    size: int


def trim(cache: Path, limit: int, name: str, say: Say) -> None:
    """Remove what goes beyond ``limit`` bytes; a base that a build uses stays.

    ``name`` is that of this build, under which a base lies while it is removed.
    """
    room = limit
    for kept in sorted((*_bases(cache / "bases"), *_debs(cache / "debs")), key=lambda each: -each.used):
        room -= kept.size
        if room >= 0:
            continue
        if kept.path.suffix == ".deb":
            kept.path.unlink(missing_ok=True)
            kept.path.with_suffix(".control").unlink(missing_ok=True)
        elif _remove_base(kept.path, name):
            say(f"the base {kept.path.name} was not used the longest and is removed from the cache")


def _bases(folder: Path) -> Iterator[_Kept]:
    for lock in folder.glob(f"*{LOCKED}"):
        size, base = lock.read_text().strip(), lock.with_suffix("")
        if size.isdigit() and base.is_dir():
            yield _Kept(base, lock.stat().st_mtime, int(size))


def _debs(folder: Path) -> Iterator[_Kept]:
    for path in folder.glob("??/*.deb"):
        found = path.stat()
        yield _Kept(path, found.st_mtime, found.st_size)


def _remove_base(base: Path, name: str) -> bool:
    with base.with_suffix(LOCKED).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        leaving = base.with_name(f".{base.name}.{name}")
        base.rename(leaving)
    shutil.rmtree(leaving)
    return True
