"""Extended attributes: each different set of them is stored once, and inodes name it by its number."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

from iceshelves.images.squashfs.entries import encoded, unpackable
from iceshelves.images.squashfs.layout import NONE, XATTR_PREFIXES
from iceshelves.images.squashfs.metablocks import MetadataStream, Squeeze, lookup_table

_MAX_NAME: Final = 255  # Linux, include/uapi/linux/limits.h, XATTR_NAME_MAX and XATTR_SIZE_MAX
_MAX_VALUE: Final = 65536


class XattrTable:
    """The sets that were asked for, in the order of asking."""

    def __init__(self, squeeze: Squeeze) -> None:
        self._squeeze = squeeze
        self._pairs = MetadataStream(squeeze)
        self._sets: dict[bytes, int] = {}
        self._records: list[bytes] = []

    def number(self, path: str, xattrs: Mapping[str, bytes]) -> int:
        """The number of this set; ``NONE`` if it is empty.  ``path`` has it, and stands in errors."""
        if not xattrs:
            return NONE
        stored = b"".join(_pair(path, name, value) for name, value in sorted(xattrs.items()))
        if stored not in self._sets:
            self._sets[stored] = len(self._records)
            self._records.append(struct.pack("<QII", self._pairs.place.reference(), len(xattrs), len(stored)))
            self._pairs.write(stored)
        return self._sets[stored]

    def finish(self, offset: int) -> tuple[bytes, int] | None:
        """The table for ``offset`` in the file and the place of its head, or ``None`` when it is empty."""
        if not self._records:
            return None
        pairs = self._pairs.finish()
        table, places = lookup_table(self._records, self._squeeze, offset + len(pairs))
        cut = places - offset - len(pairs)
        head = struct.pack("<QII", offset, len(self._records), 0)
        return pairs + table[:cut] + head + table[cut:], places


def _pair(path: str, name: str, value: bytes) -> bytes:
    for prefix, number in XATTR_PREFIXES.items():
        if name.startswith(prefix):
            rest = encoded(name.removeprefix(prefix))
            if not rest or len(rest) + len(prefix) > _MAX_NAME or len(value) > _MAX_VALUE or 0 in rest:
                break
            return struct.pack("<HH", number, len(rest)) + rest + struct.pack("<I", len(value)) + value
    raise unpackable(path, f"has the attribute {name[:80]!r}, which squashfs does not know or is too large")
