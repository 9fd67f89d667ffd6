"""A squashfs 4.0 image from a description of a tree.

The same description gives the same bytes: on any host, with any number of threads, with a full cache or none.
(The compressor's library has a word in this; see :func:`iceshelves.images.squashfs.compressors.signature`.)
"""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from iceshelves.core.errors import InvalidInput
from iceshelves.images.squashfs import layout
from iceshelves.images.squashfs.cache import BlockCache
from iceshelves.images.squashfs.compressing import Press
from iceshelves.images.squashfs.compressors import Compressor, Xz
from iceshelves.images.squashfs.entries import Entry, File
from iceshelves.images.squashfs.inodes import Inodes, Owners, type_of
from iceshelves.images.squashfs.layout import Superblock
from iceshelves.images.squashfs.listings import Listing, Named, write_listing
from iceshelves.images.squashfs.metablocks import MetadataStream, Place, lookup_table
from iceshelves.images.squashfs.nodes import Node, Tree, build
from iceshelves.images.squashfs.packing import SPARSE, Packing, Stored, pack
from iceshelves.images.squashfs.xattrs import XattrTable


@dataclass(frozen=True, slots=True)
class Options:
    """How an image is written.

    ``block_size`` in bytes is a power of two from 4 KiB to 1 MiB; ``time``, in seconds since 1970, is when
    the image says that it was made.  ``threads`` and ``cache`` change how long it takes and nothing else.
    """

    compressor: Compressor = field(default_factory=Xz)
    block_size: int = layout.MAX_BLOCK
    time: int = 0
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    cache: BlockCache | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """An image that was written: bytes, inodes, blocks of data, and how many of those were in the cache."""

    size: int
    inodes: int
    blocks: int
    cached: int


def write_squashfs(entries: Iterable[Entry], target: Path, options: Options | None = None) -> Written:
    """Write an image of ``entries`` to ``target``, which appears whole or not at all.

    Raises :class:`InvalidInput` for what squashfs cannot hold, :class:`Conflict` when a file changes
    meanwhile, and ``OSError`` of the disks.
    """
    chosen = options or Options()
    _check_block_size(chosen.block_size)
    tree = build(entries)
    packing = pack(tree.others, chosen.block_size)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
    draft = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            written = _Image(tree, packing, chosen, stream).write()
        draft.chmod(0o644)
        draft.rename(target)
    except BaseException:
        with suppress(FileNotFoundError):
            draft.unlink()
        raise
    if chosen.cache is not None:
        chosen.cache.trim()
    return written


def _check_block_size(size: int) -> None:
    if size & (size - 1) or not layout.MIN_BLOCK <= size <= layout.MAX_BLOCK:
        raise InvalidInput(
            f"{size} bytes cannot be an image's block size.",
            code="invalid_block_size",
            hint="Take a power of two from 4096 to 1048576.",
        )


@dataclass(frozen=True, slots=True)
class _Placed:
    """Where a block of data is in the file, and its size as the format writes it."""

    start: int
    size: int


class _Image:
    """One image on its way into ``stream``: data first, then tables in the order that kernels insist on."""

    def __init__(self, tree: Tree, packing: Packing, options: Options, stream: BinaryIO) -> None:
        self._tree = tree
        self._packing = packing
        self._options = options
        self._stream = stream
        self._owners = Owners()
        self._xattrs = XattrTable(self._squeeze)
        self._inodes = MetadataStream(self._squeeze)
        self._listings = MetadataStream(self._squeeze)
        self._places: dict[int, Place] = {}  # of inodes, by their numbers
        self._cached = 0

    def write(self) -> Written:
        self._stream.write(bytes(layout.SUPERBLOCK_SIZE))
        blocks = self._write_data()
        self._describe(blocks)
        superblock = self._write_tables([blocks[number] for number in self._packing.fragments])
        padding = -superblock.bytes_used % layout.PADDING
        self._stream.write(bytes(padding))
        self._stream.seek(0)
        self._stream.write(superblock.pack())
        return Written(superblock.bytes_used + padding, self._tree.inodes, len(blocks), self._cached)

    # ---- data

    def _write_data(self) -> list[_Placed]:
        press = Press(
            self._options.compressor, self._options.block_size, self._options.threads, self._options.cache
        )
        placed: list[_Placed] = []
        for block in press.squeeze_all(self._packing.blocks):
            size = len(block.data) | (0 if block.compressed else layout.BLOCK_PLAIN)
            placed.append(_Placed(self._stream.tell(), size))
            self._stream.write(block.data)
            self._cached += block.cached
        return placed

    # ---- inodes and listings

    def _describe(self, blocks: list[_Placed]) -> None:
        """Files first, as a hard link to one may be in any directory; then directories from the leaves up."""
        inodes = Inodes(self._owners)
        for node in self._tree.others:
            xattrs = self._xattrs.number(node.entry.path, node.entry.xattrs)
            if isinstance(node.entry.kind, File):
                stored = self._packing.files[node.number]
                record = inodes.file(node, stored, *_run_of(stored, blocks), xattrs)
            else:
                record = inodes.other(node, xattrs)
            self._add_inode(node, record)
        for node in reversed(self._tree.directories):
            place = self._listings.place
            listing = self._list(node)
            # The root's parent is nobody, and has the number that comes after all others.
            parent = node.parent.number if node.parent is not None else self._tree.inodes + 1
            xattrs = self._xattrs.number(node.entry.path, node.entry.xattrs)
            self._add_inode(node, inodes.directory(node, place, listing, parent, xattrs))

    def _add_inode(self, node: Node, record: bytes) -> None:
        self._places[node.number] = self._inodes.place
        self._inodes.write(record)

    def _list(self, directory: Node) -> Listing:
        names = (
            Named(name, self._places[child.number], child.number, type_of(child.entry))
            for name, child in directory.children.items()
        )
        return write_listing(names, self._listings)

    # ---- tables

    def _write_tables(self, fragments: list[_Placed]) -> Superblock:
        inode_table = self._append(self._inodes.finish())
        directory_table = self._append(self._listings.finish())
        fragment_table = self._append_table(
            struct.pack("<QII", each.start, each.size, 0) for each in fragments
        )
        export_table = self._append_table(
            struct.pack("<Q", self._places[number].reference()) for number in range(1, self._tree.inodes + 1)
        )
        id_table = self._append_table(self._owners.records())
        xattr_table = self._append_xattrs()
        flags = layout.FLAG_DEDUPLICATED | layout.FLAG_EXPORTABLE
        return Superblock(
            magic=layout.MAGIC,
            inodes=self._tree.inodes,
            time=self._options.time,
            block_size=self._options.block_size,
            fragments=len(fragments),
            compressor=self._options.compressor.number,
            block_log=self._options.block_size.bit_length() - 1,
            flags=flags | (layout.FLAG_NO_XATTRS if xattr_table == layout.NOWHERE else 0),
            ids=len(self._owners.numbers),
            major=layout.VERSION[0],
            minor=layout.VERSION[1],
            root=self._places[self._tree.root.number].reference(),
            bytes_used=self._stream.tell(),
            id_table=id_table,
            xattr_table=xattr_table,
            inode_table=inode_table,
            directory_table=directory_table,
            fragment_table=fragment_table if fragments else layout.NOWHERE,
            export_table=export_table,
        )

    def _squeeze(self, plain: bytes) -> bytes:
        return self._options.compressor.compress(plain, layout.METADATA_BLOCK)

    def _append(self, table: bytes) -> int:
        place = self._stream.tell()
        self._stream.write(table)
        return place

    def _append_table(self, records: Iterable[bytes]) -> int:
        table, place = lookup_table(records, self._squeeze, self._stream.tell())
        self._append(table)
        return place

    def _append_xattrs(self) -> int:
        found = self._xattrs.finish(self._stream.tell())
        if found is None:
            return layout.NOWHERE
        table, place = found
        self._append(table)
        return place


def _run_of(stored: Stored, blocks: list[_Placed]) -> tuple[int, list[int]]:
    """Where the blocks of a file begin, and their sizes; a block of zeros has none."""
    start = next((blocks[number].start for number in stored.blocks if number != SPARSE), 0)
    return start, [0 if number == SPARSE else blocks[number].size for number in stored.blocks]
