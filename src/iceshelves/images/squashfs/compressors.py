"""The compressors that the standard library has.  Both let other threads run while they work."""

from __future__ import annotations

import hashlib
import lzma
import zlib
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol

from iceshelves.images.squashfs.layout import METADATA_BLOCK


class Compressor(Protocol):
    """Turns one block of at most ``block_size`` bytes into fewer, if it can."""

    number: ClassVar[int]

    @property
    def settings(self) -> str:
        """Everything that decides over the result."""

    def compress(self, data: bytes, block_size: int) -> bytes:
        """``data`` compressed, which may be longer than it was."""


@dataclass(frozen=True, slots=True)
class Xz:
    """LZMA2 with a dictionary as large as a block, which is what the kernel reckons with unless it is told.

    ``preset`` 0 (fast) to 9 (small); 6 is what mksquashfs takes.
    """

    number: ClassVar[int] = 4
    preset: int = 6

    @property
    def settings(self) -> str:
        return f"xz {self.preset}"

    def compress(self, data: bytes, block_size: int) -> bytes:
        filters = [
            {"id": lzma.FILTER_LZMA2, "preset": self.preset, "dict_size": max(block_size, METADATA_BLOCK)}
        ]
        # The kernel's decoder knows no other checksum.
        return lzma.compress(data, lzma.FORMAT_XZ, lzma.CHECK_CRC32, filters=filters)


@dataclass(frozen=True, slots=True)
class Gzip:
    """zlib; ``level`` 1 (fast) to 9 (small)."""

    number: ClassVar[int] = 1
    level: int = 9

    @property
    def settings(self) -> str:
        return f"gzip {self.level}"

    def compress(self, data: bytes, block_size: int) -> bytes:  # noqa: ARG002 - its window is always 32 KiB
        return zlib.compress(data, self.level)


_PROBE_BYTES: Final = 64 * 1024


def signature(compressor: Compressor, block_size: int) -> bytes:
    """What tells results of ``compressor`` from those of other settings and of other versions of its library.

    Libraries do not always say their version, and a new one may compress otherwise: so it is given a sample.
    """
    sample = compressor.compress(_probe(), block_size)
    return hashlib.sha256(f"{compressor.settings}\n{block_size}\n".encode() + sample).digest()


def _probe() -> bytes:
    """Bytes that are neither random nor dull: digits of squares, some of them again further on."""
    text = bytearray()
    number = 1
    while len(text) < _PROBE_BYTES:
        text += b"%d " % (number * number)
        if number % 7 == 0:
            text += text[number % len(text) :][:40]
        number += 1
    return bytes(text[:_PROBE_BYTES])
