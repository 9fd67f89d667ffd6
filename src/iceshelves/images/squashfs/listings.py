"""Directory listings: names in runs that share a header, and for long ones an index of where runs begin."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from iceshelves.images.squashfs.layout import MAX_RUN, METADATA_BLOCK
from iceshelves.images.squashfs.metablocks import MetadataStream, Place

_HEADER: Final = struct.Struct("<III")
_NAME: Final = struct.Struct("<HhHH")
_REACH: Final = 32767  # how far a name's inode may be from that of its header


@dataclass(frozen=True, slots=True)
class Named:
    """One name of a directory, and its inode: where it is, its number and its type."""

    name: bytes
    place: Place
    number: int
    type: int


@dataclass(frozen=True, slots=True)
class Milestone:
    """A run that begins in a further metadata block: its offset in the listing, the block, its first name."""

    offset: int
    block: int
    name: bytes


@dataclass(frozen=True, slots=True)
class Listing:
    """A listing that was written: its bytes before compression, and its index."""

    size: int
    index: tuple[Milestone, ...]


def write_listing(names: Iterable[Named], stream: MetadataStream) -> Listing:
    """Add a directory's names, in the order of their bytes, to the table.

    A reader that looks for a name skips to the last run of the index that does not begin after it, so each
    run that is in the index begins where its metadata block is (nearly) new.
    """
    writer = _Writer(stream)
    for each in names:
        writer.add(each)
    writer.end_run()
    return Listing(writer.size, tuple(writer.index))


@dataclass(slots=True)
class _Writer:
    stream: MetadataStream
    size: int = 0
    index: list[Milestone] = field(default_factory=list)
    _run: list[Named] = field(default_factory=list)
    _run_size: int = 0
    _block: int | None = None  # the metadata block that the last run began in

    def add(self, named: Named) -> None:
        if self._run and not self._fits(named):
            self.end_run()
        if not self._run:
            self._run_size = _HEADER.size
        self._run.append(named)
        self._run_size += _NAME.size + len(named.name)

    def _fits(self, named: Named) -> bool:
        first = self._run[0]
        return (
            len(self._run) < MAX_RUN
            and named.place.block == first.place.block
            and abs(named.number - first.number) <= _REACH
            and self.stream.place.offset + self._run_size < METADATA_BLOCK
        )

    def end_run(self) -> None:
        if not self._run:
            return
        first = self._run[0]
        begins = self.stream.place.block
        if self._block is not None and begins != self._block:
            self.index.append(Milestone(self.size, begins, first.name))
        self._block = begins
        self.stream.write(_HEADER.pack(len(self._run) - 1, first.place.block, first.number))
        for each in self._run:
            self.stream.write(
                _NAME.pack(each.place.offset, each.number - first.number, each.type, len(each.name) - 1)
                + each.name
            )
        self.size += self._run_size
        self._run.clear()
