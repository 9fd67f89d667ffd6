"""Watching: operations and deployments as server-sent events."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Header, Query
from starlette.responses import Response

from iceshelves.access.policy import Permission
from iceshelves.server.answers import Other
from iceshelves.server.api.operations import OperationId
from iceshelves.server.call import Caller
from iceshelves.server.routes import Routes
from iceshelves.server.schemas.common import PathId
from iceshelves.server.streams import MEDIA_TYPE, PLACE, Subject, open_stream, read_place

EVENTS: Final = Other(
    MEDIA_TYPE,
    "Events `operation` (the operation, on every change), `log` (a log line) and, for an operation that has "
    "ended, `end`. The id of each is the place from which `Last-Event-ID` resumes.",
    schema={
        "type": "object",
        "description": "One event",
        "properties": {
            "id": {"type": "string", "pattern": PLACE},
            "event": {"enum": ["operation", "log", "end"]},
            "data": {"type": "string"},
        },
    },
)
#: a place in a stream, as the id of an event gives it
Cursor = Annotated[str | None, Query(pattern=PLACE, alias="last_event_id")]
#: what a browser sends by itself when it comes back; the stream begins anew if it is not one of ours
LastEventId = Annotated[str | None, Header()]

routes = Routes("events")


@routes.add("GET", "/api/operations/{operation}/events", Permission.DEPLOYMENTS_READ, EVENTS, errors=(404,))
async def watch_operation(
    call: Caller, operation: OperationId, last_event_id: LastEventId = None, resume: Cursor = None
) -> Response:
    """Watch an operation to its end."""
    place = read_place(resume or last_event_id)
    return await open_stream(call, Subject(operation_id=operation), place)


@routes.add("GET", "/api/deployments/{deployment}/events", Permission.DEPLOYMENTS_READ, EVENTS, errors=(404,))
async def watch_deployment(
    call: Caller, deployment: PathId, last_event_id: LastEventId = None, resume: Cursor = None
) -> Response:
    """Watch all operations of a deployment; this ends never."""
    place = read_place(resume or last_event_id)
    return await open_stream(call, Subject(deployment_id=deployment), place)
