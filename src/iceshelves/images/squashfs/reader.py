"""The little of reading squashfs that checks of an image need: its superblock and the names in it.

The image may be anybody's, so every number in it is a claim: offsets must lie in the file, a block may not
unpack to more than it may hold, and no directory is entered twice.
"""

from __future__ import annotations

import lzma
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from iceshelves.core.errors import InvalidInput, Unsupported
from iceshelves.images.squashfs import layout
from iceshelves.images.squashfs.compressors import Gzip, Xz
from iceshelves.images.squashfs.layout import Superblock

_XZ_MEMORY: Final = 16 * 1024 * 1024
_MAX_NAMES: Final = 4_000_000
#: metadata blocks that are kept, of 8 KiB each
_KEPT: Final = 512
_DIRECTORIES: Final = {layout.DIRECTORY, layout.DIRECTORY + layout.EXTENDED}


def read_superblock(path: Path) -> Superblock:
    """The superblock of the image at ``path``.

    Raises :class:`InvalidInput` (``not_squashfs``): another kind of file, one that was cut short, or numbers
    that cannot be right.
    """
    with path.open("rb") as stream:
        return _superblock(stream)


def names(path: Path) -> Iterator[str]:
    """The path of everything in the image at ``path`` but its root: ``/usr``, ``/usr/bin``, …, in no order.

    Raises :class:`InvalidInput` (``not_squashfs``), and :class:`Unsupported` for a compressor that is not at
    hand.
    """
    with path.open("rb") as stream:
        superblock = _superblock(stream)
        yield from _Reader(stream, superblock, _decompressor(superblock.compressor)).names()


def _superblock(stream: BinaryIO) -> Superblock:
    data = stream.read(layout.SUPERBLOCK_SIZE)
    size = os.fstat(stream.fileno()).st_size
    if len(data) < layout.SUPERBLOCK_SIZE:
        raise _broken("it is too short")
    found = Superblock.unpack(data)
    if found.magic != layout.MAGIC or (found.major, found.minor) != layout.VERSION:
        raise _broken("it does not begin as one of version 4.0 does")
    if not layout.MIN_BLOCK <= found.block_size <= layout.MAX_BLOCK:
        raise _broken("its block size is impossible")
    if found.block_size != 1 << min(found.block_log, 32):
        raise _broken("it says two different block sizes")
    if found.bytes_used > size:
        raise _broken("its end is missing")
    tables = [found.inode_table, found.directory_table, found.id_table]
    if not layout.SUPERBLOCK_SIZE <= tables[0] < tables[1] <= tables[2] <= found.bytes_used:
        raise _broken("its tables are not where they could be")
    return found


def _broken(why: str) -> InvalidInput:
    return InvalidInput(
        f"This is no usable squashfs image: {why}.",
        code="not_squashfs",
        hint="Build or download it again.",
    )


def _decompressor(number: int) -> Callable[[bytes], bytes]:
    if number == Xz.number:
        return _unxz
    if number == Gzip.number:
        return _inflate
    raise Unsupported(
        "The image's names cannot be read: it is compressed by something else than xz and gzip.",
        code="unknown_compressor",
    )


def _unxz(data: bytes) -> bytes:
    try:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY).decompress(data, layout.METADATA_BLOCK + 1)
    except lzma.LZMAError as error:
        raise _broken("a block of it is damaged") from error


def _inflate(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, layout.METADATA_BLOCK + 1)
    except zlib.error as error:
        raise _broken("a block of it is damaged") from error


@dataclass(slots=True)
class _Table:
    """Metadata blocks from ``start`` up to ``end`` in the file, read when they are asked for."""

    stream: BinaryIO
    start: int
    end: int
    decompress: Callable[[bytes], bytes]
    known: dict[int, tuple[bytes, int]] = field(default_factory=dict)

    def read(self, block: int, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset`` in the plain block at ``block``, and on into the next ones."""
        return _Cursor(self, block, offset, size).take(size)

    def block(self, block: int) -> tuple[bytes, int]:
        """The plain block at ``block``, and where the next one is."""
        if block not in self.known:
            if len(self.known) >= _KEPT:
                self.known.clear()
            self.known[block] = self._load(block)
        return self.known[block]

    def _load(self, block: int) -> tuple[bytes, int]:
        place = self.start + block
        if place + 2 > self.end:
            raise _broken("something points beyond its table")
        self.stream.seek(place)
        (header,) = struct.unpack("<H", self.stream.read(2))
        size = header & ~layout.METADATA_PLAIN
        if not 0 < size <= layout.METADATA_BLOCK or place + 2 + size > self.end:
            raise _broken("a block of it has an impossible size")
        data = self.stream.read(size)
        plain = data if header & layout.METADATA_PLAIN else self.decompress(data)
        if len(plain) > layout.METADATA_BLOCK:
            raise _broken("a block of it unpacks to more than it may")
        return plain, block + 2 + size


@dataclass(slots=True)
class _Cursor:
    """A place in a table, from which ``left`` more bytes may be taken."""

    table: _Table
    block: int
    offset: int
    left: int

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        if size > self.left:
            raise _broken("something in it is longer than it says")
        self.left -= size
        found = bytearray()
        while len(found) < size:
            plain, following = self.table.block(self.block)
            part = plain[self.offset : self.offset + size - len(found)]
            found += part
            self.offset += len(part)
            if len(found) < size:
                if self.offset < layout.METADATA_BLOCK:
                    raise _broken("something points beyond its table")
                self.block, self.offset = following, 0
        return bytes(found)


class _Reader:
    def __init__(
        self, stream: BinaryIO, superblock: Superblock, decompress: Callable[[bytes], bytes]
    ) -> None:
        self._root = superblock.root
        self._inodes = _Table(stream, superblock.inode_table, superblock.directory_table, decompress)
        self._listings = _Table(stream, superblock.directory_table, superblock.id_table, decompress)

    def names(self) -> Iterator[str]:
        entered: set[int] = set()
        count = 0
        waiting = [("", self._root)]
        while waiting:
            above, reference = waiting.pop()
            if reference in entered:
                raise _broken("a directory of it is in two places")
            entered.add(reference)
            for name, kind, inode in self._list(reference):
                count += 1
                if count > _MAX_NAMES:
                    raise _broken(f"it has more than {_MAX_NAMES} names")
                path = f"{above}/{name}"
                yield path
                if kind in _DIRECTORIES:
                    waiting.append((path, inode))

    def _list(self, reference: int) -> Iterator[tuple[str, int, int]]:
        """Name, type and reference of everything in a directory."""
        listing = self._listing_of(reference)
        while listing.left > 0:
            count, inodes, _ = struct.unpack("<III", listing.take(12))
            if count >= layout.MAX_RUN:
                raise _broken("a listing of it has too many names under one header")
            for _ in range(count + 1):
                place, _, kind, length = struct.unpack("<HhHH", listing.take(8))
                if length >= layout.MAX_RUN:
                    raise _broken("a name in it is too long")
                name = listing.take(length + 1)
                if name in {b".", b".."} or b"/" in name or b"\0" in name:
                    raise _broken("it holds an impossible name")
                yield name.decode("utf-8", "surrogateescape"), kind, inodes << 16 | place

    def _listing_of(self, reference: int) -> _Cursor:
        """The listing of the directory with this inode."""
        block, offset = reference >> 16, reference & 0xFFFF
        (kind,) = struct.unpack("<H", self._inodes.read(block, offset, 2))
        if kind == layout.DIRECTORY:
            start, _, size, begin, _ = struct.unpack("<IIHHI", self._inodes.read(block, offset, 32)[16:])
        elif kind == layout.DIRECTORY + layout.EXTENDED:
            _, size, start, _, _, begin, _ = struct.unpack(
                "<IIIIHHI", self._inodes.read(block, offset, 40)[16:]
            )
        else:
            raise _broken("a directory of it is none")
        return _Cursor(self._listings, start, begin, size - layout.DOTS)
