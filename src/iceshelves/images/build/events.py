"""What a build tells while it runs, as JSON lines: stages, log lines, and how it ended."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from iceshelves.core.bounded import load_json
from iceshelves.core.decode import decode
from iceshelves.core.errors import Failed, InvalidInput

MAX_LINE: Final = 64 * 1024
_MAX_TEXT: Final = 4096

Stage: TypeAlias = Literal[
    "prepare", "lock", "base", "packages", "files", "actions", "services", "normalise", "secrets", "pack"
]


@dataclass(frozen=True, slots=True)
class StageBegan:
    """A stage begins."""

    stage: Stage


@dataclass(frozen=True, slots=True)
class StageEnded:
    """A stage is done, after ``seconds``."""

    stage: Stage
    seconds: float


@dataclass(frozen=True, slots=True)
class Said:
    """A line of the build's log."""

    stage: Stage
    line: str


@dataclass(frozen=True, slots=True)
class BuiltFile:
    """A file in the job's output folder."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True)
class BuiltImage:
    """One image: its metadata tarball, and a squashfs (container) or a qcow2 (virtual machine).

    ``fingerprint`` is the SHA-256 over both files, one after the other, as Incus and LXD count it.
    """

    type: Literal["container", "virtual-machine"]
    fingerprint: str
    metadata: BuiltFile
    data: BuiltFile


@dataclass(frozen=True)
class BuildResult:
    """What a build made.  ``serial`` is its epoch as ``YYYYMMDD_HHMM``; ``lock`` lies beside the images.

    ``seconds`` tells how long each stage took; ``unpacked`` is the size of the tree in bytes.
    """

    appliance: str
    version: str
    architecture: str
    serial: str
    epoch: int
    recipe: str
    lock: BuiltFile
    images: tuple[BuiltImage, ...]
    packages: int
    unpacked: int
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Finished:
    """The build succeeded."""

    result: BuildResult


@dataclass(frozen=True)
class Broke:
    """The build failed; ``error`` is as :meth:`IceShelvesError.to_json` gives it, ``kind`` its class."""

    kind: str
    error: dict[str, Any]


Event: TypeAlias = StageBegan | StageEnded | Said | Finished | Broke
_EVENTS: Final[Mapping[str, type[Event]]] = {
    "stage_began": StageBegan, "stage_ended": StageEnded, "said": Said, "finished": Finished, "broke": Broke,
}  # fmt: skip
_NAMES: Final = {kind: name for name, kind in _EVENTS.items()}


def to_line(event: Event) -> str:
    """The event as one line of JSON, without its end of line; long log lines are cut."""
    if isinstance(event, Said):
        event = dataclasses.replace(event, line=event.line[:_MAX_TEXT])
    return json.dumps({"event": _NAMES[type(event)], **dataclasses.asdict(event)})


def from_line(line: str | bytes) -> Event:
    """The event in ``line``.  Raises :class:`Failed` (``builder_garbled``)."""
    try:
        value = load_json(line, source="the builder's output", max_bytes=MAX_LINE)
        kind = _EVENTS[value.pop("event")]
        event: Event = decode(kind, value)
    except (InvalidInput, ValueError, KeyError, AttributeError, TypeError) as error:
        raise Failed(
            "The builder said something that is no event.",
            code="builder_garbled",
            hint="Builder and server must be of one version; reinstall if they are not.",
        ) from error
    return event
