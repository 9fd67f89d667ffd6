"""A directory on disk as entries: owners shifted, times clamped, and nothing followed out of it."""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from iceshelves.core.errors import Conflict, InvalidInput
from iceshelves.images.squashfs.entries import (
    ROOT,
    BlockDevice,
    Bytes,
    CharacterDevice,
    Directory,
    Entry,
    Fifo,
    File,
    HardLink,
    Kind,
    Socket,
    Symlink,
    unpackable,
)

_CAPABILITY: Final = "security.capability"
# Linux, include/uapi/linux/capability.h: the third form is the second with the owner of a user namespace.
_CAPABILITY_2: Final = 0x02000000
_CAPABILITY_3: Final = 0x03000000
_REVISION: Final = 0xFF000000
_MAX_TIME: Final = 2**32 - 1
_MAX_DEPTH: Final = 256


def keep_nothing_out(path: str) -> bool:  # noqa: ARG001 - its signature is that of a rule
    """The rule that leaves out no path."""
    return False


@dataclass(frozen=True, slots=True)
class Rules:
    """What of a directory becomes what in the image.

    ``epoch``: times after it, in seconds since 1970, become it.  ``shift`` is taken from each owner's number,
    for a tree that was made in a user namespace.  ``left_out`` says of a path in the image (``/etc/hosts``)
    whether it and all below it stay out.  ``replaced`` gives plain files another content; they must be there.
    """

    epoch: int | None = None
    shift: int = 0
    left_out: Callable[[str], bool] = keep_nothing_out
    replaced: Mapping[str, bytes] = field(default_factory=dict)


def walk(root: Path, rules: Rules | None = None) -> Iterator[Entry]:
    """Everything in the directory ``root``, which must be at rest, in the order of paths.

    Of extended attributes, file capabilities and ``user.`` ones go along; the others belong to a host
    (labels, overlays), or are access lists, which squashfs cannot hold.  Raises :class:`InvalidInput`
    (``unpackable_file``), and ``OSError`` for what cannot be read.
    """
    return _Walk(root, rules or Rules()).entries()


@dataclass(frozen=True, slots=True)
class _OnDisk:
    """A file below ``root`` which is still the one that was found: the same inode, not a link to another."""

    path: Path
    size: int
    device: int
    inode: int

    def open(self) -> BinaryIO:
        handle = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        found = os.fstat(handle)
        if (found.st_dev, found.st_ino, found.st_size) != (self.device, self.inode, self.size):
            os.close(handle)
            raise Conflict(
                f"{self.path} was changed while it was packed.",
                code="file_changed",
                hint="Pack a tree that nobody writes to any more.",
            )
        return os.fdopen(handle, "rb", buffering=0)


class _Walk:
    def __init__(self, root: Path, rules: Rules) -> None:
        self._root = root
        self._rules = rules
        self._linked: dict[
            tuple[int, int], str
        ] = {}  # inodes that have several names, and the first of these
        self._unused = set(rules.replaced)

    def entries(self) -> Iterator[Entry]:
        handle = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield self._entry(ROOT, Directory(), os.fstat(handle), _reference(handle, "."))
            yield from self._below(handle, "")
        finally:
            os.close(handle)
        if self._unused:
            path = min(self._unused)
            raise InvalidInput(
                f"{path} was to be replaced, but is no plain file of the tree.",
                code="nothing_to_replace",
                hint="Replace what is there only.",
                details={"file": path},
            )

    def _below(self, handle: int, above: str) -> Iterator[Entry]:
        for name in sorted(os.fsencode(each) for each in os.listdir(handle)):
            path = f"{above}/{name.decode('utf-8', 'surrogateescape')}"
            if self._rules.left_out(path):
                continue
            facts = os.stat(name, dir_fd=handle, follow_symlinks=False)
            yield self._entry(path, self._kind(handle, name, path, facts), facts, _reference(handle, name))
            if stat.S_ISDIR(facts.st_mode):
                if path.count("/") >= _MAX_DEPTH:
                    raise unpackable(path, f"is more than {_MAX_DEPTH} folders deep")
                inner = os.open(
                    name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=handle
                )
                try:
                    yield from self._below(inner, path)
                finally:
                    os.close(inner)

    def _kind(self, handle: int, name: bytes, path: str, facts: os.stat_result) -> Kind:
        if not stat.S_ISDIR(facts.st_mode) and facts.st_nlink > 1:
            first = self._linked.setdefault((facts.st_dev, facts.st_ino), path)
            if first != path:
                return HardLink(first)
        device = os.major(facts.st_rdev), os.minor(facts.st_rdev)
        match stat.S_IFMT(facts.st_mode):
            case stat.S_IFDIR:
                return Directory()
            case stat.S_IFREG:
                return self._file(path, facts)
            case stat.S_IFLNK:
                return Symlink(os.readlink(name, dir_fd=handle).decode("utf-8", "surrogateescape"))
            case stat.S_IFBLK:
                return BlockDevice(*device)
            case stat.S_IFCHR:
                return CharacterDevice(*device)
            case stat.S_IFIFO:
                return Fifo()
            case stat.S_IFSOCK:
                return Socket()
            case _:
                raise unpackable(path, "is of a kind that squashfs does not know")

    def _file(self, path: str, facts: os.stat_result) -> File:
        if path in self._rules.replaced:
            self._unused.discard(path)
            return File(Bytes(self._rules.replaced[path]))
        place = self._root / os.fsdecode(path[1:].encode("utf-8", "surrogateescape"))
        return File(_OnDisk(place, facts.st_size, facts.st_dev, facts.st_ino))

    def _entry(self, path: str, kind: Kind, facts: os.stat_result, reference: bytes) -> Entry:
        time = max(0, int(facts.st_mtime))
        return Entry(
            path,
            kind,
            mode=stat.S_IMODE(facts.st_mode),
            uid=self._owner(path, facts.st_uid),
            gid=self._owner(path, facts.st_gid),
            mtime=min(time, _MAX_TIME if self._rules.epoch is None else self._rules.epoch),
            xattrs={} if isinstance(kind, HardLink) else self._xattrs(path, reference),
        )

    def _owner(self, path: str, number: int) -> int:
        if number < self._rules.shift:
            raise unpackable(path, f"belongs to {number}, who is not of the tree's user namespace")
        return number - self._rules.shift

    def _xattrs(self, path: str, reference: bytes) -> dict[str, bytes]:
        try:
            names = os.listxattr(reference, follow_symlinks=False)
        except OSError as error:
            if error.errno in {errno.ENOTSUP, errno.EPERM}:  # a file system without, or a kind of file
                return {}
            raise
        return {
            name: self._xattr(path, name, os.getxattr(reference, name, follow_symlinks=False))
            for name in names
            if name == _CAPABILITY or (name.startswith("user.") and not name.startswith("user.overlay."))
        }

    def _xattr(self, path: str, name: str, value: bytes) -> bytes:
        """Its value in the image: capabilities for a namespace become those of whoever is root there."""
        if name != _CAPABILITY or len(value) != 24:
            return value
        (magic,) = struct.unpack_from("<I", value)
        if magic & _REVISION != _CAPABILITY_3:
            return value
        (owner,) = struct.unpack_from("<I", value, 20)
        if owner != self._rules.shift:
            raise unpackable(path, f"has capabilities for the user namespace of {owner}")
        return struct.pack("<I", magic & ~_REVISION | _CAPABILITY_2) + value[4:20]


def _reference(handle: int, name: str | bytes) -> bytes:
    """A path to ``name`` in an open directory, for calls that take no directory."""
    return b"/proc/self/fd/%d/" % handle + os.fsencode(name)
