"""What a fake world plays: delays, faults, images and guests, read from plain JSON values.

``{"delays": {"create": 0.1}, "faults": [{"action": "create", "nth": [1], "kind": "temporary"}],
"images": {"debian/13": {"cached": false}}, "guests": {"web-*": {"result": "error", "errors": ["…"]}}}``
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from iceshelves.core.errors import InvalidInput
from iceshelves.providers.base import Mark

FaultKind = Literal["temporary", "failed", "conflict", "denied", "hang", "disconnect"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Fault(_Part):
    """Makes calls of ``action`` on instances like ``instance`` go wrong.

    ``nth`` counts such calls from 1; without it all of them go wrong.  ``disconnect`` does the work and then
    loses the answer; ``hang`` never answers; the others refuse before anything is done.
    """

    action: str
    instance: str = "*"
    nth: tuple[int, ...] = ()
    kind: FaultKind = "temporary"
    message: str = "the fake was told to fail"


class Line(_Part):
    """A line of cloud-init's output, ``at`` seconds after the start of the instance."""

    text: str
    at: float = 0.0


class Command(_Part):
    """What a program whose arguments, joined by spaces, match ``like`` does; ``delay`` in seconds.

    The first ``fail_first`` runs exit with 1, so that checks can be seen to be tried again.
    """

    like: str
    status: int = 0
    stdout: str = ""
    stderr: str = ""
    delay: float = 0.0
    fail_first: int = 0


class GuestScript(_Part):
    """How a guest behaves.  ``result`` is cloud-init's: done, error, never (it hangs) or absent.

    ``duration`` is the time in seconds from the start to cloud-init's result.  ``errors`` and
    ``recoverable_errors`` are what its ``result.json`` and ``status.json`` hold.
    """

    result: Literal["done", "error", "never", "absent"] = "done"
    duration: float = 0.0
    output: tuple[Line, ...] = (
        Line(text="Cloud-init v. 25.1.4 running 'init'"),
        Line(text="Cloud-init v. 25.1.4 finished. Datasource DataSourceNoCloud."),
    )
    errors: tuple[str, ...] = ()
    recoverable_errors: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    commands: tuple[Command, ...] = ()
    files: Mapping[str, str] = Field(default_factory=dict)
    addresses: tuple[str, ...] | None = None
    #: seconds from the start until the guest has its addresses
    addresses_at: float = 0.0
    #: whether a polite request to shut down is obeyed
    shuts_down: bool = True


class ImageScript(_Part):
    """An image of the world."""

    cached: bool = True
    cloud_init: bool = True
    release: str | None = None


class MemberScript(_Part):
    """A member of the world's cluster.  ``silent`` ones answer everything but what they have."""

    online: bool = True
    message: str = ""
    roles: tuple[str, ...] = ()
    automatic: bool = True
    silent: bool = False
    cpus: int = 8
    memory: str = "16GiB"
    memory_used: str = "2GiB"


class Script(_Part):
    """All that a world plays.  ``delays`` are seconds by action; see the docs for the actions' names.

    The patterns of ``guests`` match an instance's name or its egg (``web@2.*``); the first that does counts.
    """

    delays: Mapping[str, float] = Field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    images: Mapping[str, ImageScript] = Field(default_factory=dict)
    guests: Mapping[str, GuestScript] = Field(default_factory=dict)
    members: Mapping[str, MemberScript] = Field(default_factory=dict)

    def guest_of(self, name: str, mark: Mark | None) -> GuestScript:
        """The script of the guest ``name`` that ``mark`` tells the egg of."""
        subjects = [name] if mark is None else [name, mark.egg]
        for pattern, guest in self.guests.items():
            if any(fnmatchcase(subject, pattern) for subject in subjects):
                return guest
        return GuestScript()


def read_script(values: Mapping[str, Any]) -> Script:
    """Parse ``values``.  Raises :class:`InvalidInput` ``invalid_script`` that names the field."""
    try:
        return Script.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(
            f"The fake's script is wrong at {where}: {first['msg']}",
            code="invalid_script",
            hint="docs/reference/providers.md lists what a script may say.",
        ) from error
