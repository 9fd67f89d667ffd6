"""The places that a build writes to while it is not finished, and how they are left as they were found.

A build that ends by itself or is cancelled removes them; what one leaves that was killed together with its
parent is removed by the next.  Files in a tree may belong to ids that only a user namespace can change, so
removing happens in one too.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from iceshelves.core.errors import Conflict, Failed
from iceshelves.core.process import run
from iceshelves.images.build.isolation import ENVIRONMENT, isolated

_NAME: Final = re.compile(r"[0-9a-f]{16}")
_SECONDS: Final = 120.0
_OUTPUT: Final = "output.json"


@dataclass(frozen=True, slots=True)
class Workplace:
    """``name`` is random; ``output`` is where the result will be, whole, at the end."""

    name: str
    cache: Path
    output: Path

    @property
    def folder(self) -> Path:
        """This build's own folder in the cache."""
        return self.cache / "work" / self.name

    @property
    def scratch(self) -> Path:
        """Where trees are made."""
        return self.folder / "scratch"

    @property
    def unfinished(self) -> Path:
        """Where the result is written; beside its place, so that it gets there in one step."""
        return self.output.with_name(f".{self.output.name}.{self.name}")


@contextmanager
def workplace(cache: Path, output: Path) -> Iterator[Workplace]:
    """Places for one build; nothing unfinished is left in them afterwards.

    Raises :class:`Conflict` (``output_not_empty``), and :class:`Failed` (``output_unwritable``) when a folder
    cannot be made.
    """
    try:
        (cache / "work").mkdir(parents=True, exist_ok=True, mode=0o755)
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(error) from error
    if output.is_symlink() or (output.exists() and (not output.is_dir() or any(output.iterdir()))):
        raise Conflict(
            f"{output} is there already.", code="output_not_empty", hint="Give the build an empty folder."
        )
    place = Workplace(secrets.token_hex(8), cache, output)
    with _only(cache / "work"):  # who takes a place and who tidies up do not meet
        _remove_left(cache)
        held = _take(place)
    try:
        yield place
    finally:
        try:
            _remove(place)
        finally:
            os.close(held)


@contextmanager
def _only(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _take(place: Workplace) -> int:
    """Make the folders of ``place``; a descriptor that holds them."""
    try:
        place.folder.mkdir(mode=0o700)
        place.scratch.mkdir()
        place.unfinished.mkdir()
        (place.folder / _OUTPUT).write_text(json.dumps(str(place.output)))
        held = os.open(place.folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _unwritable(error) from error
    fcntl.flock(held, fcntl.LOCK_EX)
    return held


def _remove_left(cache: Path) -> None:
    """Remove what builds left that nobody holds any more."""
    for folder in (cache / "work").iterdir():
        if not _NAME.fullmatch(folder.name) or folder.is_symlink():
            continue
        try:
            held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue  # its build has just ended
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(Workplace(folder.name, cache, _output_of(folder)))
        except BlockingIOError:
            continue  # a build that runs
        finally:
            os.close(held)


def _output_of(folder: Path) -> Path:
    try:
        return Path(json.loads((folder / _OUTPUT).read_text()))
    except (OSError, ValueError, TypeError):
        return folder / "none"  # it ended before it had one


def _remove(place: Workplace) -> None:
    left = [place.unfinished, *(place.cache / "bases").glob(f".*.{place.name}")]
    left += (place.cache / "debs").glob(f".fetching-{place.name}")
    left.append(place.folder)
    existing = [str(path) for path in left if path.exists()]
    if existing:
        argv = isolated(["rm", "-rf", "--one-file-system", "--", *existing])
        run(argv, timeout=_SECONDS, env=ENVIRONMENT).checked()


def _unwritable(error: OSError) -> Failed:
    return Failed(
        f"The build cannot write to {error.filename}: {error.strerror}.",
        code="output_unwritable",
        hint="Give it folders that its user may write to.",
    )
