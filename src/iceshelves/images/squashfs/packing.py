"""Which bytes go into which block: decided from names, sizes and contents, before anything is compressed.

A block is the unit of compression and so of reuse.  A file of half a block and more has blocks of its own;
smaller ones are packed together into *fragments* in the order of their paths.  Were a fragment simply filled
up and closed, one file more or less would shift all that follow, and no later block would be found in the
cache.  So a fragment ends where a name says so: of the files in its second half, after the one whose path has
the smallest hash.  After a change, the old and the new sequence soon end a fragment at the same file, and are
equal from there on.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Final

from iceshelves.core.errors import Conflict
from iceshelves.images.squashfs.entries import Content, File
from iceshelves.images.squashfs.nodes import Node

#: for a block of nothing but zeros, which is not stored
SPARSE: Final = -1


@dataclass(frozen=True, slots=True)
class Part:
    """Some bytes of a file."""

    path: str
    content: Content
    offset: int
    size: int

    def read(self) -> bytes:
        """The bytes.  Raises :class:`Conflict` when there are fewer than there were."""
        with self.content.open() as stream:
            stream.seek(self.offset)
            return read_exactly(stream, self.size, self.path)


@dataclass(frozen=True, slots=True)
class Block:
    """One block of the image before compression; ``digest`` is the SHA-256 of all its bytes."""

    parts: tuple[Part, ...]
    digest: bytes

    def read(self) -> bytes:
        """Its bytes.  Raises :class:`Conflict` when they are not those that were hashed."""
        data = b"".join(part.read() for part in self.parts)
        if hashlib.sha256(data).digest() != self.digest:
            raise _changed(self.parts[0].path)
        return data


@dataclass(frozen=True, slots=True)
class Stored:
    """Where the bytes of a file are: its blocks by number or ``SPARSE``, and its part of a fragment, if any.

    ``fragment`` counts fragments, ``offset`` is in bytes, ``sparse`` the number of bytes in blocks of zeros.
    """

    size: int
    blocks: tuple[int, ...] = ()
    fragment: int | None = None
    offset: int = 0
    sparse: int = 0


@dataclass(slots=True)
class Packing:
    """All blocks in the order of the image, which of them are fragments, and where each file is."""

    blocks: list[Block] = field(default_factory=list)
    fragments: list[int] = field(default_factory=list)
    files: dict[int, Stored] = field(default_factory=dict)  # by number of inode


def pack(nodes: tuple[Node, ...], block_size: int) -> Packing:
    """Read every file among ``nodes`` once, and decide.  Files of one content are stored once."""
    return _Packer(block_size).pack(nodes)


@dataclass(frozen=True, slots=True)
class _Small:
    """A file that waits for its fragment, and all inodes that have this content."""

    path: str
    content: Content
    data: bytes
    numbers: list[int]

    @property
    def rank(self) -> bytes:
        """What decides whether a fragment ends here: its path alone, so a new content changes nothing."""
        return hashlib.sha256(self.path.encode("utf-8", "surrogateescape")).digest()


class _Packer:
    def __init__(self, block_size: int) -> None:
        self._block_size = block_size
        self._result = Packing()
        self._known: dict[bytes, list[int]] = {}  # hash of a content → the inodes that have it
        self._waiting: list[_Small] = []
        self._waiting_size = 0

    def pack(self, nodes: tuple[Node, ...]) -> Packing:
        for node in nodes:
            if isinstance(node.entry.kind, File):
                self._add(node.number, node.entry.path, node.entry.kind.content)
        if self._waiting:
            self._close(self._waiting)
        return self._result

    def _add(self, number: int, path: str, content: Content) -> None:
        if content.size == 0:
            self._result.files[number] = Stored(0)
        elif content.size >= self._block_size // 2:
            self._add_large(number, path, content)
        else:
            self._add_small(number, path, content)

    # ---- files with blocks of their own

    def _add_large(self, number: int, path: str, content: Content) -> None:
        blocks = tuple(self._blocks_of(path, content))
        identity = hashlib.sha256(b"".join(b"-" if each is None else each.digest for each in blocks))
        identity.update(b"%d" % content.size)
        same = self._known.setdefault(identity.digest(), [])
        if not same:
            self._result.files[number] = self._store(blocks, content.size)
        else:
            self._result.files[number] = self._result.files[same[0]]
        same.append(number)

    def _blocks_of(self, path: str, content: Content) -> Iterator[Block | None]:
        """The blocks of a file; ``None`` for one of zeros."""
        zeros = bytes(self._block_size)
        with content.open() as stream:
            data_from = 0
            for offset in range(0, content.size, self._block_size):
                size = min(self._block_size, content.size - offset)
                if data_from <= offset:
                    data_from = _next_data(stream, offset, content.size)
                if data_from >= offset + size:
                    yield None
                    continue
                stream.seek(offset)
                data = read_exactly(stream, size, path)
                if data == (zeros if size == self._block_size else zeros[:size]):
                    yield None
                else:
                    yield Block((Part(path, content, offset, size),), hashlib.sha256(data).digest())

    def _store(self, blocks: tuple[Block | None, ...], size: int) -> Stored:
        numbers: list[int] = []
        sparse = 0
        for index, block in enumerate(blocks):
            if block is None:
                numbers.append(SPARSE)
                sparse += min(self._block_size, size - index * self._block_size)
            else:
                numbers.append(len(self._result.blocks))
                self._result.blocks.append(block)
        return Stored(size, tuple(numbers), sparse=sparse)

    # ---- files in fragments

    def _add_small(self, number: int, path: str, content: Content) -> None:
        with content.open() as stream:
            data = read_exactly(stream, content.size, path)
        same = self._known.setdefault(hashlib.sha256(data).digest(), [])
        same.append(number)
        if len(same) > 1:
            if same[0] in self._result.files:  # its fragment is closed; else closing it finds all of them
                self._result.files[number] = self._result.files[same[0]]
            return
        while self._waiting_size + len(data) > self._block_size:
            self._close(self._waiting[: self._end()])
        self._waiting.append(_Small(path, content, data, same))
        self._waiting_size += len(data)

    def _end(self) -> int:
        """How many of the waiting files make the next fragment."""
        size = 0
        candidates: list[tuple[bytes, int]] = []
        for count, small in enumerate(self._waiting, start=1):
            size += len(small.data)
            if size >= self._block_size // 2:
                candidates.append((small.rank, count))
        return min(candidates)[1]  # there are some: what did not fit any more is less than half a block

    def _close(self, smalls: list[_Small]) -> None:
        """Make one fragment of ``smalls``, which are the first of those that wait."""
        digest = hashlib.sha256()
        parts: list[Part] = []
        offset = 0
        for small in smalls:
            digest.update(small.data)
            parts.append(Part(small.path, small.content, 0, len(small.data)))
            stored = Stored(len(small.data), fragment=len(self._result.fragments), offset=offset)
            for number in small.numbers:
                self._result.files[number] = stored
            offset += len(small.data)
        self._result.fragments.append(len(self._result.blocks))
        self._result.blocks.append(Block(tuple(parts), digest.digest()))
        self._waiting = self._waiting[len(smalls) :]
        self._waiting_size -= offset


def read_exactly(stream: BinaryIO, size: int, path: str) -> bytes:
    """``size`` bytes from where ``stream`` is.  Raises :class:`Conflict` when there are fewer."""
    data = stream.read(size)
    while len(data) < size:
        more = stream.read(size - len(data))
        if not more:
            raise _changed(path)
        data += more
    return data


def _next_data(stream: BinaryIO, offset: int, size: int) -> int:
    """Where data begins at or after ``offset``: only a real file knows of its holes, which may be huge."""
    if not isinstance(stream, io.FileIO):
        return offset
    try:
        return stream.seek(offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:  # nothing but a hole is left
            return size
        raise


def _changed(path: str) -> Conflict:
    return Conflict(
        f"{path[:200]} was changed while it was packed.",
        code="file_changed",
        hint="Pack a tree that nobody writes to any more.",
        details={"file": path[:200]},
    )
