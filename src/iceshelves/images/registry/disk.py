"""Files that are there whole or not at all, also after the power has failed."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from iceshelves.core.errors import Failed

_AT_ONCE: Final = 8
_libc: Final = ctypes.CDLL(None, use_errno=True)


def replace_texts(*batches: Mapping[Path, str]) -> None:
    """Write each text to its path, in one step each and safely, for everybody to read.  One writer at a time.

    All of a batch is there before any of the next.  Nothing is done where a text stands already.
    """
    changes = [{path: text for path, text in batch.items() if not _holds(path, text)} for batch in batches]
    drafts = {path: path.with_name(f".{path.name}.new") for batch in changes for path in batch}
    for changed in changes:
        for path, text in changed.items():
            drafts[path].write_bytes(text.encode())
            drafts[path].chmod(0o644)
    sync_all(drafts.values())
    for batch, changed in zip(batches, changes, strict=True):
        for path in changed:
            drafts[path].replace(path)
        sync_all({path.parent for path in batch})


def _holds(path: Path, text: str) -> bool:
    return path.exists() and path.read_bytes() == text.encode()


def sync_all(paths: Collection[Path]) -> None:
    """Make files, and the names in folders, safe: together, since disks are faster at many than at each."""
    if len(paths) < 2:
        for path in paths:
            sync(path)
        return
    with ThreadPoolExecutor(min(len(paths), _AT_ONCE)) as pool:
        list(pool.map(sync, paths))


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, safe."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_everything(path: Path) -> None:
    """Make all files of the file system that holds ``path`` safe: one call instead of thousands."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _libc.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make ``path`` and what leads to it, each safe and for everybody to enter."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(mode=0o755, exist_ok=True)
    path.chmod(0o755)
    sync(path.parent)


@contextmanager
def disk_errors() -> Iterator[None]:
    """Say in the user's terms what the disk said: :class:`Failed` ``registry_unusable``."""
    try:
        yield
    except OSError as error:
        raise Failed(
            f"The registry's folder cannot be used: {error.strerror or error}.",
            code="registry_unusable",
            hint="Look after the disk and the permissions of the registry's folder.",
            details={"file": str(error.filename or "")},
        ) from error
