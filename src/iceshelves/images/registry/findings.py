"""What verifying a tree has to say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Severity: TypeAlias = Literal["error", "warning", "note"]

_PUBLISH_AGAIN = "Publish the image again; if the tree was copied, copy it again."
_RENDER_AGAIN = "Let its registry write the catalogues again, or copy the tree again."


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing about a tree.  An *error* keeps clients from an image or shows them a wrong one.

    ``where`` is a path below the tree, with the place in the file after a ``#``.
    """

    severity: Severity
    code: str
    where: str
    message: str
    hint: str

    def to_json(self) -> dict[str, Any]:
        """The finding as JSON values, in the API's words."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True)
class Findings:
    """Findings as they are made."""

    found: list[Finding] = field(default_factory=list)

    def file(self, code: str, where: str, message: str) -> None:
        """An error about a file of an image."""
        self.found.append(Finding("error", code, where[:300], message, _PUBLISH_AGAIN))

    def catalogue(self, code: str, where: str, message: str) -> None:
        """An error in an index or a catalogue."""
        self.found.append(Finding("error", code, where[:300], message, _RENDER_AGAIN))

    def warning(self, code: str, where: str, message: str, hint: str) -> None:
        """Something that some clients, or some images, suffer from."""
        self.found.append(Finding("warning", code, where[:300], message, hint))

    def note(self, code: str, where: str, message: str, hint: str) -> None:
        """Something that harms nobody."""
        self.found.append(Finding("note", code, where[:300], message, hint))


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found.  ``read`` are the bytes that were read of ``files`` files, ``known_good`` were not."""

    findings: tuple[Finding, ...]
    views: int
    images: int
    files: int
    read: int
    known_good: int

    @property
    def clean(self) -> bool:
        """Whether there is no error."""
        return not any(finding.severity == "error" for finding in self.findings)
