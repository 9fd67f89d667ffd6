"""Routes that let nobody in by accident: each names its permission, or says that it is public.

A route identifies the caller and checks the permission before it reads the body, gives the body within bounds
to the framework, and answers a repeated request from memory (see :mod:`iceshelves.server.idempotency`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Literal, TypeVar
from urllib.parse import parse_qsl

from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Scope

from iceshelves.access import audit
from iceshelves.access.policy import Actor, Permission
from iceshelves.core.bounded import load_json
from iceshelves.core.errors import Denied, InvalidInput, Unauthenticated
from iceshelves.core.secret import Secret
from iceshelves.deploy.agents import Known
from iceshelves.server import idempotency
from iceshelves.server.answers import Answer
from iceshelves.server.call import Call, Services, request_id_of, services_of

BASE: Final = "/iceshelves"
Handler = TypeVar("Handler", bound=Callable[..., Any])
#: what a route asks of its caller: a permission, to be somebody, an agent's key, or nothing at all
Access = Permission | Literal["any", "agent", "public"]
_FORM: Final = "application/x-www-form-urlencoded"
_MAX_JSON: Final = 1024 * 1024
_MAX_NODES: Final = 20_000
#: an agent reports many lines, and all of its hypervisor's instances
_MAX_REPORT: Final = 8 * 1024 * 1024
_MAX_REPORT_NODES: Final = 200_000


class GuardedRoute(APIRoute):
    """A route of the API.  ``errors`` are the statuses that it may answer with beyond those that all may."""

    def __init__(
        self,
        path: str,
        endpoint: Callable[..., Any],
        *,
        access: Access,
        answers: Sequence[Answer],
        errors: Sequence[int] = (),
        takes_forms: bool = False,
        **described: Any,
    ) -> None:
        self.access = access
        self.answers = tuple(answers)
        self.errors = tuple(errors)
        self.takes_forms = takes_forms
        super().__init__(path, endpoint, response_model=None, **described)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The framework's own handling, with the guard before it."""
        inner = super().get_route_handler()

        async def handle(request: Request) -> Response:
            if self.access == "public":
                return await inner(BoundedRequest(request.scope, request.receive))
            if self.access == "agent":
                request.state.agent = await admit_agent(request)
                return await inner(ReportRequest(request.scope, request.receive))
            call = await admit(request, self.access)
            request.state.call = call
            bounded = BoundedRequest(request.scope, request.receive)
            if self.takes_forms and request.headers.get("content-type", "").startswith(_FORM):
                bounded = await _form_as_json(bounded)
            if request.method != "GET" and idempotency.HEADER in request.headers:
                return await idempotency.once(call, bounded, inner)
            return await inner(bounded)

        return handle


class Routes:
    """Collects the routes of one subject; ``access`` has no default on purpose."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.routes: list[GuardedRoute] = []

    def add(
        self,
        method: str,
        path: str,
        access: Access,
        *answers: Answer,
        errors: Sequence[int] = (),
        **described: Any,
    ) -> Callable[[Handler], Handler]:
        """Answer ``method`` at ``path`` (below the base) with the decorated function."""

        def register(handler: Handler) -> Handler:
            self.routes.append(
                GuardedRoute(
                    BASE + path,
                    handler,
                    methods=[method],
                    access=access,
                    answers=answers,
                    errors=errors,
                    tags=[self.tag],
                    status_code=answers[0].status,
                    operation_id=f"{method}_{path}".lower().translate(_PLAIN).strip("_"),
                    summary=(handler.__doc__ or "").split("\n")[0].rstrip("."),
                    **described,
                )
            )
            return handler

        return register


_PLAIN: Final = str.maketrans({"/": "_", "{": None, "}": None, ".": "_"})


class BoundedRequest(Request):
    """A request whose JSON is read within bounds: size, depth, number of values, keys given once."""

    max_bytes = _MAX_JSON
    max_nodes = _MAX_NODES

    async def json(self) -> Any:
        """The body.  Raises :class:`InvalidInput` naming the line."""
        body = await self.body()
        return load_json(
            body, source="The request's body", max_bytes=self.max_bytes, max_nodes=self.max_nodes
        )


class ReportRequest(BoundedRequest):
    """The same for what an agent sends."""

    max_bytes = _MAX_REPORT
    max_nodes = _MAX_REPORT_NODES


async def admit(connection: HTTPConnection, access: Permission | Literal["any"]) -> Call:
    """Who calls, if they may.  Raises :class:`Unauthenticated` or :class:`Denied`, which is audited."""
    services = services_of(connection)
    token = bearer(connection.headers.get("authorization", ""))
    return await admit_token(services, token, access, connection.scope)


async def admit_token(
    services: Services, token: Secret, access: Permission | Literal["any"], scope: Scope
) -> Call:
    """The same for a token that came another way."""
    actor = await run_in_threadpool(services.authenticator.identify, token.reveal())
    call = Call(services, actor, token, request_id_of(scope))
    if access != "any":
        try:
            actor.need(access)
        except Denied:
            await run_in_threadpool(_note_refusal, call, actor, access, scope)
            raise
    return call


async def admit_agent(connection: HTTPConnection) -> Known:
    """Which agent calls.  Its key comes as a bearer token, or in the original's header ``X-Agent-Key``."""
    shown = connection.headers.get("x-agent-key")
    key = Secret(shown) if shown else bearer(connection.headers.get("authorization", ""))
    return await run_in_threadpool(services_of(connection).control.agents.identify, key.reveal())


def bearer(header: str) -> Secret:
    """The token in an ``Authorization`` header.  Raises :class:`Unauthenticated`."""
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated(
            "This needs a token.",
            code="token_missing",
            hint="Send 'Authorization: Bearer TOKEN'; iceshelves login does it for you.",
        )
    return Secret(token.strip())


def _note_refusal(call: Call, actor: Actor, access: Permission, scope: Scope) -> None:
    with call.control.database.write() as session:
        audit.record(
            session, actor, access.value, str(scope["path"]), outcome="denied", request_id=call.request_id
        )


async def _form_as_json(request: BoundedRequest) -> BoundedRequest:
    """The same request with its form written as JSON: a form and a JSON object are read by one model."""
    body = await request.body()
    try:
        fields = parse_qsl(
            body.decode(),
            keep_blank_values=True,
            max_num_fields=100,
            errors="strict",
            strict_parsing=bool(body),
        )
    except ValueError as error:
        raise InvalidInput("The form cannot be read.", code="invalid_request") from error
    values = {name: int(value) if _is_number(name, value) else value for name, value in fields}
    scope = dict(request.scope)
    scope["headers"] = [
        (name, b"application/json" if name == b"content-type" else value) for name, value in scope["headers"]
    ]
    changed = BoundedRequest(scope, request.receive)
    changed._body = json.dumps(values).encode()
    return changed


def _is_number(name: str, value: str) -> bool:
    """A form has no numbers; ids and timeouts are meant as such."""
    return (
        (name.endswith("_id") or name == "timeout")
        and value.isascii()
        and value.isdigit()
        and len(value) < 16
    )
