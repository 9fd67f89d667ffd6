"""The client of the REST API, on the standard library's HTTP: it loads in a third of the time of others.

The connection is kept open.  Every change carries an idempotency key, so that a request whose answer was lost
can be sent again without being done twice.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from iceshelves import __version__
from iceshelves.cli.servers import Server
from iceshelves.core.errors import (
    Conflict,
    Denied,
    Failed,
    IceShelvesError,
    InvalidInput,
    NotFound,
    Temporary,
    TimedOut,
    Unauthenticated,
)

#: seconds; a synchronous answer may have to wait for a hypervisor
DEADLINE: Final = 60.0
#: bytes; the longest answers are lists of a hundred and archives of eggs
MAX_ANSWER: Final = 64 * 1024 * 1024
_ENVELOPE: Final = frozenset({"success", "data"})  # ``data`` says again what lies flat beside it
_PAGE: Final = 100  # the most that the server gives at once
_RETRY_AFTER_AT_MOST: Final = 5.0
_STILL_RUNNING_TRIES: Final = 20

_KINDS: Final[dict[int, type[IceShelvesError]]] = {
    400: InvalidInput,
    401: Unauthenticated,
    403: Denied,
    404: NotFound,
    409: Conflict,
    413: InvalidInput,
    501: InvalidInput,
    502: Failed,
    503: Temporary,
    504: TimedOut,
}


@dataclass(frozen=True)
class Request:
    """One call: a path below the base URL, and what goes with it."""

    method: str
    path: str
    query: Mapping[str, Any] = field(default_factory=dict)
    body: bytes | None = field(default=None, repr=False)
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)

    def target(self) -> str:
        """The path and query as sent; parameters that are ``None`` are left out."""
        given = {name: value for name, value in self.query.items() if value is not None}
        return f"{self.path}?{urlencode(given)}" if given else self.path


class Client:
    """Talks to one server.  Methods take paths below ``/iceshelves``, such as ``/api/eggs``.

    They raise the error that the server answered, :class:`Temporary` ``server_unreachable`` when there is
    none, or :class:`TimedOut`.
    """

    def __init__(
        self,
        server: Server,
        dial: Callable[[float], HTTPConnection] | None = None,
        deadline: float = DEADLINE,
    ) -> None:
        self.server = server
        self._deadline = deadline
        self._dial = dial or _dialler(server.url)
        self._wire: HTTPConnection | None = None
        self._prefix = urlsplit(server.url).path

    def get(self, path: str, /, **query: Any) -> dict[str, Any]:
        """The JSON object at ``path``, without the envelope of the answer."""
        return self._json(Request("GET", path, query))

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send ``body`` as JSON; the JSON object that is answered."""
        return self._json(self._changing(Request("POST", path, body=json.dumps(body or {}).encode())))

    def patch(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Change what is at ``path`` as ``body`` says; the JSON object that is answered."""
        return self._json(self._changing(Request("PATCH", path, body=json.dumps(body).encode())))

    def post_bytes(self, path: str, body: bytes) -> dict[str, Any]:
        """Send ``body`` as it is; the JSON object that is answered."""
        return self._json(
            self._changing(Request("POST", path, body=body, content_type="application/octet-stream"))
        )

    def put_bytes(self, path: str, body: bytes, /, **query: Any) -> dict[str, Any]:
        """Send ``body`` as it is to where it is to lie, however often; the JSON object that is answered."""
        return self._json(Request("PUT", path, query, body, "application/octet-stream"))

    def delete(self, path: str) -> dict[str, Any]:
        """Ask for the deletion of what is at ``path``."""
        return self._json(self._changing(Request("DELETE", path)))

    def get_bytes(self, path: str) -> bytes:
        """The body at ``path``, whatever it is."""
        return self._exchange(Request("GET", path))

    def items(self, path: str, name: str, /, *, limit: int = 0, **query: Any) -> Iterator[dict[str, Any]]:
        """The entries of the list ``name`` at ``path``, page after page, at most ``limit`` (0: all)."""
        size = min(_PAGE, limit) if limit else _PAGE
        page, seen = 1, 0
        while True:
            answer = self.get(path, page=page, per_page=size, **query)
            for entry in answer[name]:
                yield entry
                seen += 1
                if seen == limit:
                    return
            if not answer[name] or page >= int(answer.get("total_pages", 1)):
                return
            page += 1

    def stream(
        self, path: str, last_event_id: str | None, deadline: float
    ) -> tuple[HTTPResponse, HTTPConnection]:
        """Open the event stream at ``path``, on a connection that ``deadline`` seconds of silence end."""
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-cache"}
        if last_event_id is not None:
            headers["Last-Event-ID"] = last_event_id
        wire = self._dial(deadline)
        try:
            answer = self._send(wire, Request("GET", path, headers=headers))
            if answer.status != 200:
                raise problem(answer.status, answer.read(MAX_ANSWER))
        except _LOST as error:
            wire.close()
            raise self._unreachable(error) from error
        except IceShelvesError:
            wire.close()
            raise
        return answer, wire

    def close(self) -> None:
        """Hang up."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def _changing(self, request: Request) -> Request:
        return Request(
            request.method,
            request.path,
            request.query,
            request.body,
            request.content_type,
            {"Idempotency-Key": str(uuid.uuid4())},
        )

    def _json(self, request: Request) -> dict[str, Any]:
        body = self._exchange(request)
        try:
            document = json.loads(body) if body else {}
        except ValueError as error:
            raise _not_iceshelves(self.server.url) from error
        if not isinstance(document, dict):
            raise _not_iceshelves(self.server.url)
        return {name: value for name, value in document.items() if name not in _ENVELOPE}

    def _exchange(self, request: Request) -> bytes:
        for _ in range(_STILL_RUNNING_TRIES):
            answer, body = self._converse(request)
            if answer.status < 300:
                return body
            error = problem(answer.status, body)
            if error.code != "request_in_progress":
                raise error
            time.sleep(_retry_after(answer))  # our first try is still being answered: wait for its answer
        raise error

    def _converse(self, request: Request) -> tuple[HTTPResponse, bytes]:
        """Send ``request``, and once more if the connection is lost: all our requests may be repeated."""
        try:
            return self._try(request)
        except _LOST as error:
            if isinstance(error, ssl.SSLCertVerificationError | TimeoutError | ConnectionRefusedError):
                raise self._unreachable(error) from error
        try:
            return self._try(request)
        except _LOST as error:
            raise self._unreachable(error) from error

    def _try(self, request: Request) -> tuple[HTTPResponse, bytes]:
        if self._wire is None:
            self._wire = self._dial(self._deadline)
        try:
            answer = self._send(self._wire, request)
            body = answer.read(MAX_ANSWER + 1)
        except BaseException:
            self.close()
            raise
        if len(body) > MAX_ANSWER:
            self.close()
            raise Failed(f"The answer to {request.path} is too large.", code="answer_too_large")
        return answer, body

    def _send(self, wire: HTTPConnection, request: Request) -> HTTPResponse:
        headers = {
            "Accept": "application/json",
            "User-Agent": f"iceshelves-cli/{__version__}",
            **request.headers,
        }
        if self.server.token:
            headers["Authorization"] = f"Bearer {self.server.token.reveal()}"
        if request.body is not None:
            headers["Content-Type"] = request.content_type
        wire.request(request.method, self._prefix + request.target(), request.body, headers)
        return wire.getresponse()

    def _unreachable(self, error: Exception) -> IceShelvesError:
        url = self.server.url
        if isinstance(error, ssl.SSLCertVerificationError):
            return Failed(
                f"The certificate of {url} is not trusted: {error.verify_message}.",
                code="certificate_not_trusted",
                hint="Point SSL_CERT_FILE at the authority that signed it.",
            )
        if isinstance(error, TimeoutError):
            return TimedOut(f"{url} did not answer in time.", code="server_timed_out", hint="Is it busy?")
        if isinstance(error, socket.gaierror):
            return Temporary(
                f"The host of {url} is not known.", code="server_unreachable", hint="Check the address."
            )
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "connection lost"
        return Temporary(
            f"{url} cannot be reached: {reason}.",
            code="server_unreachable",
            hint="Is the server running? Start it with 'iceshelves serve'; check with 'iceshelves doctor'.",
        )


_LOST: Final = (OSError, HTTPException)


def segment(text: object) -> str:
    """``text`` as one segment of a path, whatever is in it."""
    return quote(str(text), safe="")


def _dialler(url: str) -> Callable[[float], HTTPConnection]:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "https":
        context = ssl.create_default_context()
        return lambda deadline: HTTPSConnection(host, parts.port, timeout=deadline, context=context)
    return lambda deadline: HTTPConnection(host, parts.port, timeout=deadline)


def _retry_after(answer: HTTPResponse) -> float:
    text = answer.getheader("Retry-After") or "1"
    return min(float(text), _RETRY_AFTER_AT_MOST) if text.isdigit() else 1.0


def problem(status: int, body: bytes) -> IceShelvesError:
    """The error in a ``application/problem+json`` body, as the kind that it was on the server."""
    kind = _KINDS.get(status, Failed)
    try:
        document = json.loads(body)
        message = str(document.get("error") or document.get("detail") or document["title"])
    except (ValueError, KeyError, AttributeError, TypeError):
        if status in (502, 503, 504):  # a proxy whose server is being restarted
            return Temporary(f"The server is not available ({status}).", code="server_unreachable")
        return Failed(
            f"The server answered {status}, and not in the way of IceShelves.",
            code="unexpected_answer",
            hint="Is this the address of an IceShelves server? Check with 'iceshelves doctor'.",
        )
    code = document.get("error_code")
    details = document.get("details")
    hint = document.get("hint")
    if status >= 500 and document.get("request_id"):
        message = f"{message} (request {document['request_id']})"
    return kind(
        message,
        code=code if isinstance(code, str) else None,
        hint=hint if isinstance(hint, str) else None,
        details=details if isinstance(details, dict) else None,
    )


def _not_iceshelves(url: str) -> Failed:
    return Failed(
        f"What answers at {url} is not IceShelves.",
        code="unexpected_answer",
        hint="Check the address with 'iceshelves context list'.",
    )
