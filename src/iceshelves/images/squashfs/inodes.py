"""Inodes as they are stored: the short form where it says enough, else the extended one."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from iceshelves.core.errors import InvalidInput
from iceshelves.images.squashfs import layout
from iceshelves.images.squashfs.entries import (
    BlockDevice,
    CharacterDevice,
    Directory,
    Entry,
    Fifo,
    File,
    HardLink,
    Socket,
    Symlink,
    encoded,
)
from iceshelves.images.squashfs.listings import Listing
from iceshelves.images.squashfs.metablocks import Place
from iceshelves.images.squashfs.nodes import Node
from iceshelves.images.squashfs.packing import Stored

_TYPES: Final = {
    Directory: layout.DIRECTORY, File: layout.FILE, Symlink: layout.SYMLINK, Fifo: layout.FIFO,
    BlockDevice: layout.BLOCK_DEVICE, CharacterDevice: layout.CHARACTER_DEVICE, Socket: layout.SOCKET,
}  # fmt: skip
_MAX_OWNERS: Final = 65536
_SHORT_LISTING: Final = 0xFFFF
_SHORT_SIZE: Final = 0xFFFF_FFFF


@dataclass(slots=True)
class Owners:
    """User and group numbers; inodes name them by their place in this list."""

    numbers: dict[int, int] = field(default_factory=dict)

    def place(self, number: int) -> int:
        """Where ``number`` is in the list.  Raises :class:`InvalidInput` when there are too many of them."""
        place = self.numbers.setdefault(number, len(self.numbers))
        if place >= _MAX_OWNERS:
            raise InvalidInput(
                f"The tree has more than {_MAX_OWNERS} different owners, which squashfs cannot tell apart.",
                code="too_many_owners",
                hint="Give its files fewer owners.",
            )
        return place

    def records(self) -> Iterator[bytes]:
        """The list as a table's records."""
        return (struct.pack("<I", number) for number in self.numbers)


def type_of(entry: Entry) -> int:
    """The type of its inode, as listings give it."""
    return _TYPES[type(entry.kind)]


@dataclass(frozen=True, slots=True)
class Inodes:
    """Writes inodes whose owners and attributes are in these tables."""

    owners: Owners

    def directory(self, node: Node, place: Place, listing: Listing, parent: int, xattrs: int) -> bytes:
        """The inode of a directory whose listing begins at ``place``."""
        size = listing.size + layout.DOTS
        if size <= _SHORT_LISTING and not listing.index and xattrs == layout.NONE:
            return self._head(node, extended=False) + struct.pack(
                "<IIHHI", place.block, node.links, size, place.offset, parent
            )
        index = b"".join(
            struct.pack("<III", each.offset, each.block, len(each.name) - 1) + each.name
            for each in listing.index
        )
        return (
            self._head(node, extended=True)
            + struct.pack(
                "<IIIIHHI",
                node.links, size, place.block, parent, len(listing.index), place.offset, xattrs,
            )
            + index
        )  # fmt: skip

    def file(self, node: Node, stored: Stored, start: int, sizes: Iterable[int], xattrs: int) -> bytes:
        """The inode of a file whose blocks begin at ``start`` and have ``sizes`` as they are stored."""
        blocks = b"".join(struct.pack("<I", size) for size in sizes)
        fragment = layout.NONE if stored.fragment is None else stored.fragment
        short = max(start, stored.size) <= _SHORT_SIZE and not stored.sparse
        if short and node.links == 1 and xattrs == layout.NONE:
            return (
                self._head(node, extended=False)
                + struct.pack("<IIII", start, fragment, stored.offset, stored.size)
                + blocks
            )
        return (
            self._head(node, extended=True)
            + struct.pack(
                "<QQQIIII", start, stored.size, stored.sparse, node.links, fragment, stored.offset, xattrs
            )
            + blocks
        )

    def other(self, node: Node, xattrs: int) -> bytes:
        """The inode of anything else: links, devices, pipes and sockets."""
        extended = xattrs != layout.NONE
        head = self._head(node, extended) + struct.pack("<I", node.links)
        return head + _body(node.entry) + (struct.pack("<I", xattrs) if extended else b"")

    def _head(self, node: Node, extended: bool) -> bytes:
        entry = node.entry
        return struct.pack(
            "<HHHHII",
            type_of(entry) + (layout.EXTENDED if extended else 0),
            entry.mode,
            self.owners.place(entry.uid),
            self.owners.place(entry.gid),
            entry.mtime,
            node.number,
        )


def _body(entry: Entry) -> bytes:
    match entry.kind:
        case Symlink(target):
            name = encoded(target)
            return struct.pack("<I", len(name)) + name
        case BlockDevice(major, minor) | CharacterDevice(major, minor):
            return struct.pack("<I", (minor & 0xFF) | major << 8 | (minor & ~0xFF) << 12)
        case Fifo() | Socket():
            return b""
        case Directory() | File() | HardLink():
            raise TypeError(f"{type(entry.kind).__name__} has an inode of its own shape")
