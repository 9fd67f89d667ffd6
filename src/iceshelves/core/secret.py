"""A string that must not be seen: its ``repr`` and ``str`` are redacted, its value is asked for by name."""

from __future__ import annotations

import hmac
from typing import Final

REDACTED: Final = "••••••"


class Secret:
    """Holds a secret string.  ``reveal()`` is the only way to read it; equality takes constant time."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself; call it at the last moment, where it leaves the process."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({REDACTED})"

    def __str__(self) -> str:
        return REDACTED

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash(self._value)

    def __bool__(self) -> bool:
        return bool(self._value)


def redact(text: str, secrets: list[str]) -> str:
    """``text`` with every secret of at least four characters replaced, longest first."""
    for value in sorted({s for s in secrets if len(s) >= 4}, key=len, reverse=True):
        text = text.replace(value, REDACTED)
    return text
