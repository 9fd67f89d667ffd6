"""How steps are worded and timed, in every view."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from iceshelves.core import clock
from iceshelves.core.units import format_duration

MARKS: Final = {"done": "✓", "failed": "✗", "cancelled": "-", "skipped": "·", "running": "…", "pending": " "}


def seconds(thing: Mapping[str, Any]) -> float | None:
    """How long a step or an operation took, or has taken so far; ``None`` before it began."""
    started, finished = thing.get("started_at"), thing.get("finished_at")
    if not started:
        return None
    end = clock.from_text(finished) if finished else clock.now()
    return max(0.0, (end - clock.from_text(started)).total_seconds())


def duration(thing: Mapping[str, Any]) -> str:
    """The same for people; empty before it began."""
    taken = seconds(thing)
    return "" if taken is None else format_duration(taken)


def title(step: Mapping[str, Any]) -> str:
    """A step's name as people read it: ``ensure_image`` is ``ensure image``."""
    return str(step["name"]).replace("_", " ").replace("-", " ")


def age(moment: str | None) -> str:
    """How long ago ``moment`` was: ``3m``, ``5h``, ``2d``."""
    if not moment:
        return ""
    past = max(0.0, (clock.now() - clock.from_text(moment)).total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if past >= size:
            return f"{int(past // size)}{unit}"
    return f"{int(past)}s"
