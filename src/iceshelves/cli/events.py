"""Server-sent events, followed to their end: a lost connection is resumed after the last event seen."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

from iceshelves.cli.client import Client
from iceshelves.core.errors import Failed, Temporary, TimedOut

#: seconds; the server says something every 15
SILENCE: Final = 45.0
#: seconds without a server before we give up: long enough for a restart
PATIENCE: Final = 120.0
_MAX_LINE: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Event:
    """One event; ``data`` is its JSON value."""

    id: str | None
    name: str
    data: Any


class Lines(Protocol):
    """What events are read from."""

    def readline(self, limit: int = -1, /) -> bytes:
        """The next line, empty at the end."""


def parse(stream: Lines) -> Iterator[Event]:
    """The events on ``stream`` (WHATWG HTML, section 9.2.6), until it ends.

    Raises :class:`Failed` when they are not ours: a line without an end, or data that is not JSON.
    """
    identity: str | None = None
    name, data = "message", list[str]()
    while line := stream.readline(_MAX_LINE):
        if not line.endswith(b"\n") and len(line) >= _MAX_LINE:
            raise _malformed("a line has no end")
        text = line.decode(errors="replace").rstrip("\r\n")
        if not text:
            if data:
                yield Event(identity, name, _value("\n".join(data)))
            name, data = "message", []
            continue
        field, _, value = text.partition(":")
        value = value.removeprefix(" ")
        if field == "id" and "\0" not in value:
            identity = value
        elif field == "event":
            name = value
        elif field == "data":
            data.append(value)


class Feed:
    """The events at one path.  Iterating again continues after the last event that was handled."""

    def __init__(self, client: Client, path: str, on_loss: Callable[[str], None] = lambda _: None) -> None:
        self._client = client
        self._path = path
        self._on_loss = on_loss
        self.last_id: str | None = None

    def __iter__(self) -> Iterator[Event]:
        """Yield until the server says that it was the end.  Raises what the server answers, and
        :class:`Temporary` when it stays away for :data:`PATIENCE`."""
        waited, pause = 0.0, 0.5
        while True:
            try:
                for event in self._connection():
                    if event.name == "end":
                        return
                    yield event
                    self.last_id = event.id
                    waited, pause = 0.0, 0.5
                reason = "the server closed the stream"
            except (Temporary, TimedOut) as error:
                if waited >= PATIENCE:
                    raise
                reason = error.message
            self._on_loss(reason)
            time.sleep(pause)
            waited += pause
            pause = min(pause * 2, 5.0)

    def _connection(self) -> Iterator[Event]:
        answer, wire = self._client.stream(self._path, self.last_id, SILENCE)
        try:
            yield from parse(answer)
        except (OSError, http.client.HTTPException) as error:
            raise Temporary("The connection was lost.", code="connection_lost") from error
        finally:
            wire.close()


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise _malformed("its data is not JSON") from error


def _malformed(why: str) -> Failed:
    return Failed(f"An event of the server cannot be read: {why}.", code="unexpected_answer")
