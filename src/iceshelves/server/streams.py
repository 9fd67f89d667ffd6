"""Server-sent events over what the database holds: whoever reconnects goes on where it was.

A stream is a loop: read what is new, send it, wait to be woken.  Waiting ends after a second in any case,
since another server may have written.  An event's id is its place, ``VERSION.LOGID``: the version of the
operation and the id of the last log line that were sent.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from iceshelves.core.errors import IceShelvesError
from iceshelves.core.log import logger
from iceshelves.operations.states import OPEN
from iceshelves.server import shown
from iceshelves.server.call import Call
from iceshelves.server.schemas.operations import LogItem, OperationItem
from iceshelves.store.queries import deployments, logs, operations
from iceshelves.store.queries.pages import Row

_log: Final = logger(__name__)
MEDIA_TYPE: Final = "text/event-stream"
_PATIENCE: Final = 1.0
_HEARTBEAT: Final = 15.0
_BATCH: Final = 500
#: what the id of an event looks like
PLACE: Final = r"^([0-9]{1,10})\.([0-9]{1,18})$"


@dataclass(frozen=True, slots=True)
class Place:
    """How far a reader is."""

    version: int = 0
    log_id: int = 0
    operation_id: str = ""

    def __str__(self) -> str:
        return f"{self.version}.{self.log_id}"


@dataclass(frozen=True, slots=True)
class News:
    """What is new; ``operation`` is None while it has not changed, ``more`` says that lines are left."""

    operation: OperationItem | None
    lines: Sequence[LogItem]
    ended: bool
    more: bool


@dataclass(frozen=True, slots=True)
class Subject:
    """What is watched: one operation to its end, or a deployment for as long as anybody looks."""

    deployment_id: int | None = None
    operation_id: str | None = None

    @property
    def topic(self) -> str:
        """What the bus calls it."""
        return f"operation:{self.operation_id}" if self.operation_id else f"deployment:{self.deployment_id}"


def read_place(cursor: str | None) -> Place:
    """The place that the id of an event names; the beginning where there is none that could be one."""
    match = re.fullmatch(PLACE, cursor or "")
    return Place(int(match[1]), int(match[2])) if match else Place()


async def open_stream(call: Call, subject: Subject, place: Place) -> StreamingResponse:
    """The stream from ``place`` on.  Raises :class:`NotFound` before anything is sent."""
    first = await run_in_threadpool(_news, call, subject, replace(place, version=0))
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_events(call, subject, place, first), media_type=MEDIA_TYPE, headers=headers)


async def _events(call: Call, subject: Subject, place: Place, news: News) -> AsyncIterator[bytes]:
    beat = time.monotonic() + _HEARTBEAT
    with call.control.bus.subscribe(subject.topic) as reader:
        while True:
            for event, moved in _written(news, place):
                place = moved
                yield event
            if news.ended and not news.more:
                yield _event("end", str(place), "{}")
                return
            if call.services.closing.begun:
                return
            if not news.more:
                await reader.wait(_PATIENCE)
            if time.monotonic() >= beat:
                beat = time.monotonic() + _HEARTBEAT
                if not await _still_allowed(call):
                    return
                yield b": still here\n\n"
            try:
                news = await run_in_threadpool(_news, call, subject, place)
            except IceShelvesError as error:  # the database is away: the reader comes back by itself
                _log.warning("the stream of %s ends early: %s", subject.topic, error)
                return


def _written(news: News, place: Place) -> list[tuple[bytes, Place]]:
    """The events of ``news``, each with the place that it leads to.  The end of an operation comes last."""
    lines: list[tuple[bytes, Place]] = []
    for line in news.lines:
        place = replace(place, log_id=line.id)
        lines.append((_event("log", str(place), line.model_dump_json()), place))
    operation = news.operation
    if operation is None or news.more:
        return lines
    place = replace(place, version=operation.version, operation_id=operation.id)
    return [*lines, (_event("operation", str(place), operation.model_dump_json()), place)]


def _event(kind: str, place: str, data: str) -> bytes:
    return f"id: {place}\nevent: {kind}\ndata: {data}\n\n".encode()


async def _still_allowed(call: Call) -> bool:
    """A stream outlives its request's check, so it is checked again."""
    try:
        await run_in_threadpool(call.services.authenticator.identify, call.token.reveal())
    except IceShelvesError:
        return False
    return True


def _news(call: Call, subject: Subject, place: Place) -> News:
    with call.control.database.read() as session:
        row = _watched(session, call.tenant_id, subject)
        wanted = logs.LogFilter(
            deployment_id=subject.deployment_id, operation_id=subject.operation_id, after=place.log_id
        )
        lines = logs.following(session, call.tenant_id, wanted, _BATCH)
        known = row is None or (row.version == place.version and row.id == place.operation_id)
        operation = None if row is None or known else shown.all_operations(session, [row])[0]
    ended = subject.operation_id is not None and row is not None and row.status not in OPEN
    return News(operation, shown.logs(lines), ended, len(lines) == _BATCH)


def _watched(session: Session, tenant_id: int, subject: Subject) -> Row | None:
    if subject.operation_id is not None:
        return operations.find(session, tenant_id, subject.operation_id)
    deployment_id = subject.deployment_id or 0
    deployments.need(session, tenant_id, deployment_id)
    return operations.last_of(session, tenant_id, deployment_id)
