"""What lint has to say: one finding, with its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from iceshelves.core.errors import InvalidInput

Level: TypeAlias = Literal["error", "warning", "hint"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing about an egg or a recipe.  An *error* keeps it from working, a *warning* probably does, a
    *hint* may.

    ``file`` is relative to its folder, ``line`` and ``column`` count from 1, ``field`` is a dotted path in
    it.
    """

    level: Level
    code: str
    message: str
    file: str
    line: int = 1
    column: int | None = None
    field: str | None = None
    hint: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The finding as JSON values, in the API's words."""
        return {name: getattr(self, name) for name in self.__slots__}

    def __str__(self) -> str:
        column = f":{self.column}" if self.column else ""
        return f"{self.file}:{self.line}{column}: {self.level}: {self.message} [{self.code}]"


def from_error(error: InvalidInput, file: str) -> Finding:
    """The finding that says what ``error`` says about ``file``, unless its details name a better place."""
    details = error.details
    where, line = str(details.get("file", file)), int(details.get("line", 1))
    message = error.message.removeprefix(f"{where}, line {line}: ")  # a finding has its place beside it
    return Finding(
        "error",
        error.code,
        message[:1].upper() + message[1:] if message != error.message else message,
        where,
        line,
        details.get("column"),
        details.get("field"),
        error.hint,
    )
