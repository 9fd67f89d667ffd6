"""Names that are spelt almost like one that there is not."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(wrong: str, names: Iterable[str]) -> str | None:
    """The hint for ``wrong``; ``None`` where nothing is like it."""
    close = difflib.get_close_matches(wrong, sorted(set(names)), n=3)
    return f"Did you mean {' or '.join(close)}?" if close else None
