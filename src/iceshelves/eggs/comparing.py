"""What changed between two eggs, file by file."""

from __future__ import annotations

import difflib
from typing import Final

from iceshelves.eggs.model import Egg

_MAX_LINES: Final = 5000


def diff(a: Egg, b: Egg) -> str:
    """A unified diff from ``a`` to ``b`` over all files; empty when they are the same.

    Files that are not text, or too long to compare line by line, are only said to differ.
    """
    parts = [
        _file_diff(a, b, name)
        for name in sorted({*a.files, *b.files})
        if a.files.get(name) != b.files.get(name)
    ]
    return "".join(parts)


def _file_diff(a: Egg, b: Egg, name: str) -> str:
    old, new = _lines(a.files.get(name, b"")), _lines(b.files.get(name, b""))
    before = f"{a.name}@{a.version}/{name}" if name in a.files else "/dev/null"
    after = f"{b.name}@{b.version}/{name}" if name in b.files else "/dev/null"
    if old is None or new is None:
        return f"Files {before} and {after} differ\n"
    lines = difflib.unified_diff(old, new, before, after)
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    )


def _lines(content: bytes) -> list[str] | None:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    lines = [f"{line}\n" for line in text.split("\n")]
    lines[-1] = lines[-1][:-1]
    if not lines[-1]:
        lines.pop()
    return lines if len(lines) <= _MAX_LINES and "\0" not in text else None
