"""Eggs on disk: read without following anything out of the egg, written all or not at all."""

from __future__ import annotations

import os
import posixpath
import shutil
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from iceshelves.core.errors import Conflict, InvalidInput, NotFound
from iceshelves.eggs.archive import files_from_archive
from iceshelves.eggs.build import egg_from_files
from iceshelves.eggs.model import Egg
from iceshelves.eggs.names import (
    MAX_DEPTH,
    MAX_FILES,
    MAX_TOTAL_BYTES,
    check_file_name,
    check_size,
    check_totals,
)

_SKIPPED: Final = frozenset({".git", ".hg", ".svn"})


def read_directory(path: Path) -> Egg:
    """The egg in the directory ``path``; its name is the directory's where metadata.json gives none.

    Raises :class:`NotFound`, or :class:`InvalidInput` naming the file: too large, not a plain file, a link
    out of the egg, or not an egg.
    """
    return egg_from_files(files_from_directory(path), path.resolve().name)


def load(path: Path) -> Egg:
    """The egg at ``path``, a directory or a packed file.  Raises like :func:`read_directory`."""
    return egg_from_files(load_files(path), path.resolve().name.removesuffix(".egg"))


def load_files(path: Path) -> dict[str, bytes]:
    """The files of the egg at ``path``, a directory or a packed file, unjudged."""
    if path.is_dir():
        return files_from_directory(path)
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_TOTAL_BYTES + 1)
    except OSError as error:
        raise _missing(path) from error
    if len(data) > MAX_TOTAL_BYTES:
        raise InvalidInput(
            f"{path.name} is larger than {MAX_TOTAL_BYTES} bytes; no egg is.",
            code="egg_too_large",
            hint="Is this the right file?",
            details={"file": path.name},
        )
    return files_from_archive(data)


def files_from_directory(path: Path) -> dict[str, bytes]:
    """Every file below ``path``; links are taken for the file of the same egg that they name."""
    try:
        root = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _missing(path) from error
    try:
        reader = _Reader()
        reader.read(root, "", 0)
        return reader.resolved()
    except OSError as error:
        raise InvalidInput(
            f"{error.filename or path.name} cannot be read: {error.strerror}.",
            code="unreadable_file",
            hint="Check its permissions.",
            details={"file": str(error.filename or path.name)},
        ) from error
    finally:
        os.close(root)


def write_directory(egg: Egg, path: Path) -> None:
    """Write ``egg`` byte for byte to the new directory ``path``, or nothing.  Raises :class:`Conflict`."""
    if path.exists() or path.is_symlink():
        raise Conflict(f"{path} exists already.", code="path_exists", hint="Choose another path.")
    path.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        for name, content in egg.files.items():
            target = made / check_file_name(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        made.chmod(0o755)
        made.rename(path)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


@dataclass(slots=True)
class _Reader:
    """Descends by directory descriptor, so that nothing swapped in meanwhile can lead it elsewhere."""

    files: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    total: int = 0

    def read(self, directory: int, prefix: str, depth: int) -> None:
        for entry in sorted(os.listdir(directory)):
            name = prefix + entry
            kind = os.stat(entry, dir_fd=directory, follow_symlinks=False).st_mode
            if stat.S_ISDIR(kind):
                if entry not in _SKIPPED:
                    self._descend(directory, entry, name, depth)
            elif stat.S_ISLNK(kind):
                self.links[check_file_name(name)] = os.readlink(entry, dir_fd=directory)
                check_totals(len(self.links), 0)
            elif stat.S_ISREG(kind):
                self._take(directory, entry, check_file_name(name))
            else:
                raise _not_plain(name, "is neither a file nor a directory")

    def _descend(self, directory: int, entry: str, name: str, depth: int) -> None:
        if depth + 1 >= MAX_DEPTH:
            raise _not_plain(name, f"is deeper than {MAX_DEPTH} directories")
        inner = os.open(entry, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
        try:
            self.read(inner, f"{name}/", depth + 1)
        finally:
            os.close(inner)

    def _take(self, directory: int, entry: str, name: str) -> None:
        check_totals(len(self.files) + 1, self.total)
        descriptor = os.open(entry, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
        with os.fdopen(descriptor, "rb") as stream:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise _not_plain(name, "is not a plain file")
            check_totals(0, self.total + check_size(name, found.st_size))
            content = stream.read(found.st_size + 1)
        check_totals(0, self.total + check_size(name, len(content)))
        self.files[name] = content
        self.total += len(content)

    def resolved(self) -> dict[str, bytes]:
        """The files, with each link's target in its place.  Links are never followed: they are looked up."""
        for name, target in self.links.items():
            meant = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
            if target.startswith("/") or meant.startswith("..") or meant not in self.files:
                raise _not_plain(name, "is a link to something that is not a file of this egg")
        for name, target in self.links.items():
            meant = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
            self.total += len(self.files[meant])
            check_totals(min(len(self.files) + 1, MAX_FILES + 1), self.total)
            self.files[name] = self.files[meant]
        return self.files


def _missing(path: Path) -> NotFound:
    return NotFound(
        f"There is no egg at {path}.", code="egg_not_found", hint="Give a directory or .egg file."
    )


def _not_plain(name: str, what: str) -> InvalidInput:
    return InvalidInput(
        f"{name!r} {what}.",
        code="unsafe_file",
        hint="An egg is made of plain files.",
        details={"file": name},
    )
