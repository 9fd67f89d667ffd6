"""Images for hypervisors whose agents pass them on."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Path, Query
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from iceshelves.server.answers import Other
from iceshelves.server.api.agents import Visitor
from iceshelves.server.call import services_of
from iceshelves.server.routes import Routes

_FILE: Final = "application/octet-stream"
_BYTES: Final = {"type": "string", "format": "binary"}
WHOLE: Final = Other(_FILE, "The file", schema=_BYTES)
PART: Final = Other(_FILE, "The bytes that the header Range asks for", 206, _BYTES)
ServerPath = Annotated[str, Path(min_length=1, max_length=63, examples=["images"])]
#: not part of the address, so that no proxy on the way can make another path of it
FileQuery = Annotated[
    str, Query(alias="path", min_length=1, max_length=1024, examples=["streams/v1/index.json"])
]

routes = Routes("agents")


@routes.add("GET", "/api/agent/v1/mirror/{server}", "agent", WHOLE, PART, errors=(404, 502))
async def mirror_image(request: Request, visitor: Visitor, server: ServerPath, file: FileQuery) -> Response:
    """Fetch a file from one of the image servers of an agent's cluster."""
    asked = request.headers.get("range", "")
    found = await services_of(request).control.images.open(visitor.cluster_id, server, file, asked)
    headers = {"Content-Length": str(found.end - found.start), "Accept-Ranges": "bytes"}
    if not found.whole:
        headers["Content-Range"] = f"bytes {found.start}-{found.end - 1}/{found.size}"
    status = WHOLE.status if found.whole else PART.status
    return StreamingResponse(found.chunks, status, headers, media_type=found.media_type)
