"""Sizes and durations as people and hypervisors write them."""

from __future__ import annotations

import re
from typing import Final

from iceshelves.core.errors import InvalidInput

# Incus and LXD accept both families (doc/reference/instance_units): powers of 1000 and of 1024.
_FACTORS: Final[dict[str, int]] = {
    "": 1, "B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4,
    "KIB": 1024, "MIB": 1024**2, "GIB": 1024**3, "TIB": 1024**4,
}  # fmt: skip
_SIZE: Final = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*$")
_DURATION: Final = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?\s*$")
_SECONDS: Final[dict[str, float]] = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_size(text: str) -> int:
    """Bytes in ``512MiB``, ``2GB`` or a plain number.  Raises :class:`InvalidInput`."""
    match = _SIZE.match(text)
    factor = _FACTORS.get(match[2].upper()) if match else None
    if match is None or factor is None:
        raise InvalidInput(
            f"{text!r} is not a size.", code="invalid_size", hint="Write a number and a unit, such as 512MiB."
        )
    return int(float(match[1]) * factor)


def parse_duration(text: str) -> float:
    """Seconds in ``90``, ``90s``, ``10m`` or ``1.5h``.  Raises :class:`InvalidInput`."""
    match = _DURATION.match(text)
    if match is None:
        raise InvalidInput(
            f"{text!r} is not a duration.", code="invalid_duration", hint="Write 90s, 10m or 1.5h."
        )
    return float(match[1]) * _SECONDS[match[2] or "s"]


def format_size(count: int) -> str:
    """``count`` bytes for people, with three digits at most: ``1.5 GiB``."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def format_duration(seconds: float) -> str:
    """``seconds`` for people: ``0.4s``, ``12.3s``, ``2m05s``, ``1h02m``."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m"
