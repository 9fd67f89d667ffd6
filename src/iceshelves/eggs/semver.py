"""Versions as semver.org 2.0.0 defines them: parsed strictly, pre-releases before their release."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Final

from iceshelves.core.errors import InvalidInput

_NUMBER: Final = r"(?:0|[1-9][0-9]{0,17})"
_PRE: Final = rf"(?:{_NUMBER}|[0-9]{{0,64}}[A-Za-z-][0-9A-Za-z-]{{0,64}})"
_PATTERN: Final = re.compile(
    rf"({_NUMBER})\.({_NUMBER})\.({_NUMBER})"
    rf"(?:-({_PRE}(?:\.{_PRE}){{0,15}}))?"
    r"(?:\+([0-9A-Za-z-]{1,64}(?:\.[0-9A-Za-z-]{1,64}){0,15}))?"
)


@functools.total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class SemVer:
    """A semantic version.  Build metadata is kept and printed, but takes no part in comparing (rule 10)."""

    major: int
    minor: int
    patch: int
    pre: tuple[str, ...] = ()
    build: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> SemVer:
        """Read ``1.2.3-rc.1+build``.  Raises :class:`InvalidInput` (``invalid_version``)."""
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise InvalidInput(
                f"{text[:80]!r} is not a version.",
                code="invalid_version",
                hint="Write three numbers, such as 1.4.0 or 2.0.0-rc.1.",
            )
        pre = tuple(match[4].split(".")) if match[4] else ()
        build = tuple(match[5].split(".")) if match[5] else ()
        return cls(int(match[1]), int(match[2]), int(match[3]), pre, build)

    def __str__(self) -> str:
        pre = "-" + ".".join(self.pre) if self.pre else ""
        build = "+" + ".".join(self.build) if self.build else ""
        return f"{self.major}.{self.minor}.{self.patch}{pre}{build}"

    def _key(self) -> tuple[int, int, int, bool, tuple[tuple[bool, int, str], ...]]:
        # Numbers sort by value and before words; a release sorts after all of its pre-releases (rule 11).
        parts = tuple((not p.isdigit(), int(p) if p.isdigit() else 0, p) for p in self.pre)
        return self.major, self.minor, self.patch, not self.pre, parts

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, SemVer) else NotImplemented

    def __lt__(self, other: SemVer) -> bool:
        return self._key() < other._key()

    def __hash__(self) -> int:
        return hash(self._key())
