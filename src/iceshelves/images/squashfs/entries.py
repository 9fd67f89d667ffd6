"""What a writer is told about a tree: one entry for each name, whatever it was found in.

Owners, devices and attributes are only described, never made on a disk, so writing an image needs no root.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, Final, Protocol, TypeAlias

from iceshelves.core.errors import InvalidInput

ROOT: Final = "/"


class Content(Protocol):
    """The bytes of a file.  They are read twice: to be known by their hash, and again to be compressed."""

    @property
    def size(self) -> int:
        """How many bytes there are."""

    def open(self) -> BinaryIO:
        """The bytes from the first on, seekable; whoever asked closes it."""


@dataclass(frozen=True, slots=True)
class Bytes:
    """Content in memory."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def open(self) -> BinaryIO:
        return io.BytesIO(self.data)


@dataclass(frozen=True, slots=True)
class Directory:
    """A folder; what is in it are entries of their own."""


@dataclass(frozen=True, slots=True)
class File:
    """A plain file."""

    content: Content


@dataclass(frozen=True, slots=True)
class Symlink:
    """A symbolic link, whatever it points to."""

    target: str


@dataclass(frozen=True, slots=True)
class BlockDevice:
    """A block device."""

    major: int
    minor: int


@dataclass(frozen=True, slots=True)
class CharacterDevice:
    """A character device; 0:0 is what overlay file systems mark a removed name with."""

    major: int
    minor: int


@dataclass(frozen=True, slots=True)
class Fifo:
    """A named pipe."""


@dataclass(frozen=True, slots=True)
class Socket:
    """A socket's name."""


@dataclass(frozen=True, slots=True)
class HardLink:
    """One more name for what is at the path ``to``, which is no directory; its owner and mode hold."""

    to: str


Kind: TypeAlias = (
    Directory | File | Symlink | BlockDevice | CharacterDevice | Fifo | Socket | HardLink
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a tree.

    ``path`` starts with a slash and is ``/`` for the root.  Bytes that are not UTF-8 are lone surrogates in
    it (PEP 383), as in the target of a symlink.  ``mode`` holds the permission bits only, ``mtime`` whole
    seconds since 1970; attributes are ``user.``, ``trusted.`` and ``security.`` ones.
    """

    path: str
    kind: Kind
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    xattrs: Mapping[str, bytes] = field(default_factory=dict)


def encoded(name: str) -> bytes:
    """The bytes that ``name`` stands for.  Raises :class:`InvalidInput` for text that no bytes give."""
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise unpackable(ascii(name), "is not text that a file's name can be") from error


def unpackable(path: str, what: str) -> InvalidInput:
    """The error for an entry that no image can hold as it is."""
    return InvalidInput(
        f"{path[:200]} cannot be packed: it {what}.",
        code="unpackable_file",
        hint="Change or leave out that file before the image is packed.",
        details={"file": path[:200]},
    )
