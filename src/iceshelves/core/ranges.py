"""The ``Range`` header (RFC 9110, 14.2): one range of bytes."""

from __future__ import annotations

import re
from typing import Final

from iceshelves.core.errors import InvalidInput

_RANGE: Final = re.compile(r"bytes=(\d{1,18})?-(\d{1,18})?")


def span(asked: str, size: int) -> tuple[int, int, bool]:
    """Which bytes a ``Range`` header asks for, and whether that is all; several ranges get the whole.

    Raises :class:`InvalidInput` ``invalid_range`` where there is no such byte (RFC 9110, 14.1.2).
    """
    match = _RANGE.fullmatch(asked.strip())
    if match is None or not (match[1] or match[2]):
        return 0, size, True
    if not match[1]:  # so many from the end
        start, end = max(0, size - int(match[2])), size
    else:
        start, end = int(match[1]), min(size, int(match[2]) + 1 if match[2] else size)
    if start >= end:
        raise InvalidInput(f"The file has {size} bytes, not {asked[:60]!r}.", code="invalid_range")
    return start, end, False
