"""What happens to every request, as plain ASGI: an id, safe headers, a bound on the body, figures."""

from __future__ import annotations

import re
import time
import uuid
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from iceshelves.core.log import logger
from iceshelves.server import problems
from iceshelves.server.call import request_id_of
from iceshelves.server.metrics import RequestFigures

MAX_BODY: Final = 20 * 1024 * 1024
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{8,64}")
_log: Final = logger("iceshelves.server.access")


class Envelope:
    """Outermost: gives the request its id, the answer its headers, and an unforeseen error an answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        begun = False

        async def send_enveloped(message: Message) -> None:
            nonlocal begun
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                begun = True
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            elif message["type"] == "websocket.accept":
                begun = True
            await send(message)

        try:
            await self._app(scope, receive, send_enveloped)
        except Exception as error:
            if begun or scope["type"] != "http":
                _log.exception("unhandled error", extra={"request_id": request_id})
                raise
            await problems.unexpected(error, request_id)(scope, receive, send_enveloped)


class BoundedBody:
    """Refuses a body that is larger than any egg, by what it says and by what it is."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if not declared.isdigit() or int(declared[:20]) > MAX_BODY:
            await problems.answer(_too_large(), request_id_of(scope))(scope, receive, send)
            return
        taken = 0

        async def receive_bounded() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > MAX_BODY:
                raise _too_large()
            return message

        await self._app(scope, receive_bounded, send)


class Counted:
    """Counts requests by the route that answered them, and logs each at level DEBUG."""

    def __init__(self, app: ASGIApp, figures: RequestFigures) -> None:
        self._app = app
        self._figures = figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        status = 0

        async def send_noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_noted)
        finally:
            seconds = time.perf_counter() - begun
            route = scope.get("route")
            endpoint = getattr(route, "path", "unknown")
            method = scope["method"] if route is not None else "unknown"
            self._figures.count(method, endpoint, seconds)
            _log.debug(
                "%s %s %s %.1f ms",
                method,
                endpoint,
                status,
                seconds * 1000,
                extra={"request_id": request_id_of(scope)},
            )


def _request_id(scope: Scope) -> str:
    """The caller's own id if it is a plain one, so that its logs and ours can be joined; else a new one."""
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    return given.decode() if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _too_large() -> problems.TooLarge:
    return problems.TooLarge(
        f"The request's body is larger than {MAX_BODY // (1024 * 1024)} MiB.",
        hint="No egg is that large; let the instance fetch large files itself.",
    )
