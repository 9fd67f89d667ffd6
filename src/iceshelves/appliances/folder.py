"""The folder of a recipe, read without following any link and without reading more than a recipe may have."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from iceshelves.appliances.paths import MAX_DEPTH, wrong_with_name
from iceshelves.core.errors import InvalidInput, NotFound

MAX_FILES: Final = 500
MAX_FILE_BYTES: Final = 16 * 1024 * 1024
MAX_TOTAL_BYTES: Final = 64 * 1024 * 1024
_SKIPPED: Final = frozenset({".git", ".hg", ".svn"})
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(slots=True)
class Folder:
    """Reads below one directory by its descriptor, so that nothing swapped in meanwhile leads elsewhere."""

    descriptor: int
    total: int = field(default=0)

    def read(self, name: str, limit: int = MAX_FILE_BYTES) -> bytes:
        """The content of the plain file ``name``, a relative path.

        Raises :class:`NotFound` (``file_missing``), and :class:`InvalidInput`: ``unsafe_file_name``,
        ``unsafe_file`` (a link or no plain file), ``file_too_large``, ``recipe_too_large``.
        """
        with self._opened(name) as descriptor:
            content = _content(descriptor, name, limit)
        self.total += len(content)
        if self.total > MAX_TOTAL_BYTES:
            raise _too_large(name, f"The files are larger than {MAX_TOTAL_BYTES} bytes together.")
        return content

    def is_executable(self, name: str) -> bool:
        """Whether its owner may execute the file ``name``.  Raises like :meth:`read`."""
        with self._opened(name) as descriptor:
            return bool(os.fstat(descriptor).st_mode & stat.S_IXUSR)

    def has(self, name: str) -> bool:
        """Whether there is anything called ``name`` at the top."""
        with os.scandir(self.descriptor) as entries:
            return any(entry.name == name for entry in entries)

    def names(self, below: str = "") -> list[str]:
        """The plain files and links in the folder ``below``, as relative paths in order; no hidden folders.

        Raises :class:`InvalidInput` when there are too many, or they lie too deep.
        """
        found: list[str] = []
        for name in self._walk(below):
            found.append(name)
            if len(found) > MAX_FILES:
                raise InvalidInput(
                    f"There are more than {MAX_FILES} files; no recipe has so many.",
                    code="too_many_files",
                    hint="Is this the right folder?",
                )
        return sorted(found)

    def _walk(self, below: str) -> Iterator[str]:
        waiting = [below]
        while waiting:
            prefix = waiting.pop()
            if prefix.count("/") >= MAX_DEPTH:
                raise _unsafe(prefix, f"is deeper than {MAX_DEPTH} folders")
            with self._opened(prefix, folder=True) as descriptor, os.scandir(descriptor) as entries:
                for entry in entries:
                    name = f"{prefix}/{entry.name}" if prefix else entry.name
                    if not entry.is_dir(follow_symlinks=False):
                        yield name
                    elif entry.name not in _SKIPPED:
                        waiting.append(name)

    @contextmanager
    def _opened(self, name: str, *, folder: bool = False) -> Iterator[int]:
        reason = wrong_with_name(name) if name else None
        if reason:
            raise InvalidInput(
                f"The file name {name[:120]!a} {reason}.",
                code="unsafe_file_name",
                hint="Files of a recipe have plain names below its own folder.",
            )
        parts = name.split("/") if name else []
        descriptor = os.dup(self.descriptor)
        try:
            for index, part in enumerate(parts):
                flags = _FOLDER if folder or index + 1 < len(parts) else _FILE
                inner = os.open(part, flags, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = inner
            yield descriptor
        except FileNotFoundError as error:
            raise NotFound(
                f"The recipe has no file {name!r}.", code="file_missing", hint="Add it, or correct the name."
            ) from error
        except OSError as error:
            # A link where none may be gives ELOOP, or ENOTDIR where a folder was expected.
            raise _unsafe(name, f"cannot be read as a plain file: {error.strerror}") from error
        finally:
            os.close(descriptor)


@contextmanager
def opened(path: Path) -> Iterator[Folder]:
    """The folder at ``path``.  Raises :class:`NotFound` (``appliance_not_found``)."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise NotFound(
            f"There is no recipe at {path}.",
            code="appliance_not_found",
            hint="Give a folder that has an appliance.yaml.",
        ) from error
    try:
        yield Folder(descriptor)
    finally:
        os.close(descriptor)


def _content(descriptor: int, name: str, limit: int) -> bytes:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise _unsafe(name, "is not a plain file")
    if found.st_size > limit:
        raise _too_large(name, f"{name} is larger than {limit} bytes.")
    chunks: list[bytes] = []
    left = limit + 1
    while left and (chunk := os.read(descriptor, min(left, 1024 * 1024))):
        chunks.append(chunk)
        left -= len(chunk)
    if not left:
        raise _too_large(name, f"{name} is larger than {limit} bytes.")
    return b"".join(chunks)


def _unsafe(name: str, what: str) -> InvalidInput:
    return InvalidInput(
        f"{name[:120]!a} {what}.", code="unsafe_file", hint="A recipe is made of plain files; no links."
    )


def _too_large(name: str, message: str) -> InvalidInput:
    return InvalidInput(
        message,
        code="file_too_large",
        hint="Let a package bring large files.",
        details={"file": name},
    )
