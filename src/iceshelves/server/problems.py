"""Every error in one shape: RFC 9457 problem details, beside the members of the documented envelope."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from iceshelves.core.errors import (
    Cancelled,
    Conflict,
    Denied,
    Failed,
    IceShelvesError,
    InvalidInput,
    NotFound,
    Temporary,
    TimedOut,
    Unauthenticated,
    Unsupported,
)
from iceshelves.core.names import OBJECT_NAME
from iceshelves.server.call import request_id_of

MEDIA_TYPE: Final = "application/problem+json"
#: the status of each kind of error; ``Failed`` is somebody else's failure: a hypervisor's or a guest's
STATUS: Final[Mapping[type[IceShelvesError], int]] = {
    InvalidInput: 400, Unauthenticated: 401, Denied: 403, NotFound: 404,
    Conflict: 409, Unsupported: 409, Cancelled: 409, Failed: 502, Temporary: 503, TimedOut: 504,
}  # fmt: skip
TITLES: Final[Mapping[int, str]] = {
    400: "The request cannot be used as it is",
    401: "Log in first",
    403: "Your role does not allow this",
    404: "There is no such object",
    405: "This address does not take this method",
    409: "In conflict with what is there",
    413: "The request is too large",
    500: "An error in the server",
    502: "The hypervisor or the guest failed",
    503: "Not available right now",
    504: "It took too long",
}
#: patterns that people meet, in their words
_PATTERNS: Final[Mapping[str | None, str]] = {
    f"^{OBJECT_NAME.pattern}$": (
        "use 1 to 63 of a-z, 0-9, '.', '_' and '-', with a letter or digit at both ends"
    )
}
_log: Final = logging.getLogger("iceshelves.server")


class TooLarge(InvalidInput):
    """The request's body has more bytes than the server takes."""

    default_code = "body_too_large"


class MethodNotAllowed(InvalidInput):
    """The address is right, the method is not."""

    default_code = "method_not_allowed"


class Unexpected(IceShelvesError):
    """An error in the server itself; what it was stays in the server's log."""

    default_code = "internal_error"


def status_of(error: IceShelvesError) -> int:
    """The HTTP status that ``error`` answers with."""
    if isinstance(error, TooLarge):
        return 413
    if isinstance(error, MethodNotAllowed):
        return 405
    return next((status for kind, status in STATUS.items() if isinstance(error, kind)), 500)


def problem(error: IceShelvesError, request_id: str) -> dict[str, Any]:
    """``error`` as JSON values."""
    status = status_of(error)
    return {
        "type": error.docs,
        "title": TITLES[status],
        "status": status,
        "detail": error.message,
        "success": False,
        "error": error.message,
        "code": status,
        "error_code": error.code,
        "hint": error.hint,
        "details": error.details,
        "request_id": request_id,
    }


def answer(error: IceShelvesError, request_id: str) -> Response:
    """``error`` as a response."""
    status = status_of(error)
    headers: dict[str, str] = {}
    delay = error.delay if isinstance(error, Temporary) else error.details.get("retry_after")
    if delay is not None:
        headers["Retry-After"] = str(max(1, math.ceil(delay)))
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="iceshelves"'
    allowed = error.details.get("allowed")
    if isinstance(error, MethodNotAllowed) and allowed:
        headers["Allow"] = ", ".join(allowed)
    body = json.dumps(problem(error, request_id), ensure_ascii=False, separators=(",", ":"), default=str)
    return Response(body.encode(errors="replace"), status, headers, MEDIA_TYPE)


def unexpected(error: Exception, request_id: str) -> Response:
    """Log what nobody foresaw, and answer without saying what it was."""
    _log.error("unhandled error in request %s", request_id, exc_info=error)
    return answer(
        Unexpected(
            "The server met an error of its own.",
            hint="Its log has the details under this request id; please report it.",
        ),
        request_id,
    )


async def on_known(request: Request, error: Exception) -> Response:
    """Exception handler for the error tree."""
    if not isinstance(error, IceShelvesError):
        return unexpected(error, request_id_of(request.scope))
    return answer(error, request_id_of(request.scope))


async def on_invalid(request: Request, error: Exception) -> Response:
    """Exception handler for requests that do not fit their description."""
    fields = _fields(error.errors()) if isinstance(error, RequestValidationError) else []
    first = fields[0] if fields else {"field": "body", "message": "it cannot be read"}
    return answer(
        InvalidInput(
            f"{first['field']}: {first['message']}",
            code="invalid_request",
            hint="The API's description is at /iceshelves/api/openapi.json.",
            details={"fields": fields},
        ),
        request_id_of(request.scope),
    )


async def on_http(request: Request, error: Exception) -> Response:
    """Exception handler for what the framework itself refuses."""
    request_id = request_id_of(request.scope)
    if isinstance(error.__cause__, IceShelvesError):  # raised while the framework read the body
        return answer(error.__cause__, request_id)
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 404:
        return answer(no_such_address(request.url.path), request_id)
    if status == 405:
        return answer(_wrong_method(request), request_id)
    if status < 500:
        return answer(InvalidInput("The request's body cannot be read.", code="invalid_request"), request_id)
    return unexpected(error, request_id)


def no_such_address(path: str) -> NotFound:
    """What is said of an address that leads nowhere."""
    return NotFound(
        f"There is nothing at {path[:200]}.",
        code="no_such_address",
        hint="The API's description is at /iceshelves/api/openapi.json.",
    )


def _wrong_method(request: Request) -> MethodNotAllowed:
    path = request.url.path
    routes = [r for r in request.app.routes if isinstance(r, Route) and r.path_regex.match(path)]
    literal = [route for route in routes if route.path == path]  # where a name could stand, but does not
    allowed = {method for route in literal or routes for method in route.methods or ()}
    return MethodNotAllowed(
        f"{path[:200]} does not take {request.method[:20]}.",
        hint=f"It takes {', '.join(sorted(allowed))}.",
        details={"allowed": sorted(allowed)},
    )


def _fields(errors: Sequence[Any]) -> list[dict[str, str]]:
    """Where and what, without the value: it may be a secret."""
    return [
        {"field": ".".join(str(part) for part in error["loc"]), "message": _in_words(error)}
        for error in errors[:50]
    ]


def _in_words(error: Mapping[str, Any]) -> str:
    pattern = (error.get("ctx") or {}).get("pattern")
    return _PATTERNS.get(pattern, str(error["msg"]))
