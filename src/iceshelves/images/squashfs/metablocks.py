"""Metadata: records in blocks of 8 KiB, each with a header of two bytes, and tables with a list of blocks."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from iceshelves.images.squashfs.layout import METADATA_BLOCK, METADATA_PLAIN

#: compresses one metadata block
Squeeze: TypeAlias = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record begins: offset of its block in the stored table, and its offset in the plain block."""

    block: int
    offset: int

    def reference(self) -> int:
        """Itself as the format writes it in one number."""
        return self.block << 16 | self.offset


class MetadataStream:
    """Records one after the other; they may cross from block to block."""

    def __init__(self, squeeze: Squeeze) -> None:
        self._squeeze = squeeze
        self._plain = bytearray()
        self._stored = bytearray()
        self.starts: list[int] = []

    @property
    def place(self) -> Place:
        """Where the next record will begin."""
        return Place(len(self._stored), len(self._plain))

    def write(self, record: bytes) -> None:
        """Add ``record``."""
        self._plain += record
        while len(self._plain) >= METADATA_BLOCK:
            self._store(bytes(self._plain[:METADATA_BLOCK]))
            del self._plain[:METADATA_BLOCK]

    def finish(self) -> bytes:
        """All blocks, the last one included."""
        if self._plain:
            self._store(bytes(self._plain))
            self._plain.clear()
        return bytes(self._stored)

    def _store(self, plain: bytes) -> None:
        squeezed = self._squeeze(plain)
        self.starts.append(len(self._stored))
        if len(squeezed) < len(plain):
            self._stored += struct.pack("<H", len(squeezed)) + squeezed
        else:
            self._stored += struct.pack("<H", len(plain) | METADATA_PLAIN) + plain


def lookup_table(records: Iterable[bytes], squeeze: Squeeze, offset: int) -> tuple[bytes, int]:
    """A table for ``offset`` in the file: its bytes, and where in the file its list of blocks begins."""
    stream = MetadataStream(squeeze)
    for record in records:
        stream.write(record)
    blocks = stream.finish()
    places = struct.pack(f"<{len(stream.starts)}Q", *(offset + start for start in stream.starts))
    return blocks + places, offset + len(blocks)
