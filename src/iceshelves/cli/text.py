"""Text from elsewhere, made safe for a terminal: a guest's log must not drive the reader's screen."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

# C0 and C1 controls but tab and newline, and the marks that turn the direction of text.
_CONTROLS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_SEQUENCE: Final = re.compile(r"\x1b(?:\[[0-9;:?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")


def printable(text: str) -> str:
    """``text`` without escape sequences; other control characters are shown as ``\\x1b`` is written."""
    plain = _SEQUENCE.sub("", text).replace("\r\n", "\n")
    return _CONTROLS.sub(lambda match: f"\\x{ord(match[0]):02x}", plain)


def one_line(text: str) -> str:
    """``text`` as it fits into one line of a table or a status."""
    return " ".join(printable(text).split())


def width(text: str) -> int:
    """How many columns ``text`` takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(_columns(character) for character in text)


def shorten(text: str, columns: int) -> str:
    """``text``, cut with an ellipsis where it is wider than ``columns``."""
    if width(text) <= columns:
        return text
    kept: list[str] = []
    room = columns - 1
    for character in text:
        room -= _columns(character)
        if room < 0:
            break
        kept.append(character)
    return "".join(kept) + "…"


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
