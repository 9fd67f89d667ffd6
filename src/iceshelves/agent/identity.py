"""Who this agent is: which server it serves and by which key; one small file that only it may read."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final

from iceshelves.core.errors import InvalidInput, NotFound

_FILE: Final = "identity.json"


@dataclass(frozen=True, slots=True)
class Identity:
    """``server`` is the base URL (``https://host/iceshelves``), ``socket`` the daemon's, if not the usual."""

    server: str
    cluster: str
    key: str = field(repr=False)
    socket: str = ""
    #: PEM file of the certificate, or authority, that the server has to show; empty: this machine's own
    authority: str = ""

    def with_key(self, key: str) -> Identity:
        """The same with another key."""
        return replace(self, key=key)

    def save(self, state: Path) -> None:
        """Write it into the folder ``state``, whole or not at all."""
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = state / f"{_FILE}.{os.getpid()}"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            json.dump(asdict(self), stream, indent=2)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(state / _FILE)
        folder = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        os.fsync(folder)
        os.close(folder)


def load(state: Path) -> Identity:
    """Read it.  Raises :class:`NotFound` ``not_enrolled`` and :class:`InvalidInput` ``invalid_identity``."""
    file = state / _FILE
    try:
        return Identity(**json.loads(file.read_text()))
    except FileNotFoundError as error:
        raise NotFound(
            f"This agent is not enrolled: there is no {file}.",
            code="not_enrolled",
            hint="On a machine that is logged in to the server: iceshelves cluster enroll NAME"
            " prints the line to paste here.",
        ) from error
    except (OSError, ValueError, TypeError) as error:
        raise InvalidInput(
            f"{file} cannot be read: {error}",
            code="invalid_identity",
            hint="Enrol again: iceshelves cluster enroll NAME prints the line to paste here.",
        ) from error
