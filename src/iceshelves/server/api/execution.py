"""Running a program in an instance, over a websocket.

The client's first message is the program (text, JSON); then its binary messages are standard input (an empty
one ends it) and its text messages ``{"resize": [columns, rows]}`` or ``{"signal": n}``.  The server sends
binary messages, whose first byte says which stream they are of (1 stdout, 2 stderr), and at the end one text
message: ``{"exit": status}`` or ``{"error": {…}}``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Annotated, Any, Final

from pydantic import Field, ValidationError, field_validator
from starlette.concurrency import run_in_threadpool
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from iceshelves.access import audit
from iceshelves.access.policy import Permission
from iceshelves.core.bounded import load_json
from iceshelves.core.errors import Conflict, IceShelvesError, InvalidInput, NotFound
from iceshelves.core.log import logger
from iceshelves.core.secret import Secret
from iceshelves.providers.base import ExecRequest, ExecSession
from iceshelves.server import problems
from iceshelves.server.call import Call, request_id_of, services_of
from iceshelves.server.routes import BASE, admit_token, bearer
from iceshelves.server.schemas.common import Body

PROTOCOL: Final = "iceshelves.exec"
_TOKEN: Final = "bearer."
_MAX_ID: Final = 2**31 - 1
_FIRST_MESSAGE_SECONDS: Final = 10.0
_MAX_MESSAGE: Final = 256 * 1024
_STREAMS: Final = {"stdout": b"\x01", "stderr": b"\x02"}
_SIZE = Annotated[int, Field(ge=1, le=10_000)]
_log: Final = logger(__name__)


class ExecBody(Body):
    """The program to run.  ``terminal`` gives columns and rows, or null for plain pipes."""

    command: Annotated[list[str], Field(min_length=1, max_length=1000)]
    environment: dict[str, str] = Field(default_factory=dict)
    user: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    group: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    cwd: str | None = None
    terminal: tuple[_SIZE, _SIZE] | None = None

    @field_validator("user", mode="before")
    @classmethod
    def _default_user(cls, value: Any) -> Any:
        return 0 if value is None else value

    @field_validator("environment", mode="before")
    @classmethod
    def _default_environment(cls, value: Any) -> Any:
        return {} if value is None else value


class ControlBody(Body):
    """What may be said while the program runs."""

    resize: tuple[_SIZE, _SIZE] | None = None
    signal: Annotated[int, Field(ge=1, le=64)] | None = None


class GuardedWebSocket(WebSocketRoute):
    """A websocket route that names its permission, as every other route does."""

    access = Permission.INSTANCES_EXEC


async def exec_in_instance(socket: WebSocket) -> None:
    """Let the caller in, run what it asks for, and carry the streams."""
    try:
        call, protocol = await _admit(socket)
        deployment_id = _deployment_id(socket)
        name, guest = await call.control.open_guest(call.actor, deployment_id)
    except IceShelvesError as error:
        await socket.send_denial_response(problems.answer(error, request_id_of(socket.scope)))
        return
    await socket.accept(subprotocol=protocol)
    try:
        request = await _first_message(socket)
        await run_in_threadpool(_note, call, name, request)
        async with await guest.exec(name, request) as session:
            status = await _carry(socket, session)
        await _finish(socket, {"exit": status})
    except IceShelvesError as error:
        await _finish(socket, {"error": error.to_json()})
    except WebSocketDisconnect:
        _log.debug("the client of an exec in %s went away", name)


async def _admit(socket: WebSocket) -> tuple[Call, str | None]:
    """Browsers cannot set headers here, so the token may also come as a subprotocol."""
    offered: list[str] = socket.scope.get("subprotocols", [])
    carried = next((protocol for protocol in offered if protocol.startswith(_TOKEN)), None)
    token = (
        Secret(carried.removeprefix(_TOKEN)) if carried else bearer(socket.headers.get("authorization", ""))
    )
    call = await admit_token(services_of(socket), token, GuardedWebSocket.access, socket.scope)
    return call, PROTOCOL if PROTOCOL in offered else carried


def _deployment_id(socket: WebSocket) -> int:
    text = str(socket.path_params["deployment"])
    if not text.isascii() or not text.isdigit() or len(text) > 10 or int(text) > _MAX_ID:
        raise NotFound(f"There is no deployment {text[:40]!r}.", code="deployment_not_found")
    return int(text)


async def _first_message(socket: WebSocket) -> ExecRequest:
    try:
        async with asyncio.timeout(_FIRST_MESSAGE_SECONDS):
            text = await socket.receive_text()
        load_json(text, source="The first message", max_bytes=_MAX_MESSAGE)
        body = ExecBody.model_validate_json(text)
    except (ValidationError, KeyError, TimeoutError) as error:
        raise InvalidInput(
            "The first message does not say which program to run.",
            code="invalid_exec_request",
            hint='Send {"command": ["sh", "-c", "…"]} as text.',
        ) from error
    return ExecRequest(
        command=body.command,
        environment=body.environment,
        user=body.user,
        group=body.group,
        cwd=body.cwd,
        terminal=body.terminal,
    )


def _note(call: Call, name: str, request: ExecRequest) -> None:
    with call.control.database.write() as session:  # arguments may be secrets, so only the program is noted
        audit.record(
            session,
            call.actor,
            "instance.exec",
            name,
            request_id=call.request_id,
            details={"program": request.command[0][:200]},
        )


async def _carry(socket: WebSocket, session: ExecSession) -> int:
    """Carry both directions until the program has ended, or the client has gone."""
    inward = asyncio.create_task(_carry_in(socket, session))
    outward = asyncio.create_task(_carry_out(socket, session))
    try:
        done, _ = await asyncio.wait({inward, outward}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()  # an error of either ends the session
        return await outward
    finally:
        inward.cancel()
        outward.cancel()
        ended, _ = await asyncio.wait({inward, outward})
        for task in ended:
            if not task.cancelled() and (error := task.exception()):
                _log.debug("an exec ended with %r", error)  # the first of them is on its way up already


async def _carry_out(socket: WebSocket, session: ExecSession) -> int:
    async for stream, data in session.output():
        await socket.send_bytes(_STREAMS[stream] + data)
    return await session.wait()


async def _carry_in(socket: WebSocket, session: ExecSession) -> None:
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        if message.get("bytes") is not None:
            await _write(session, message["bytes"])
        else:
            await _control(session, message.get("text") or "")


async def _write(session: ExecSession, data: bytes) -> None:
    try:
        await session.write(data)
    except Conflict as closed:  # a program need not read all of its input: what is left is dropped
        _log.debug("input is dropped: %s", closed)


async def _control(session: ExecSession, text: str) -> None:
    try:
        load_json(text, source="A message", max_bytes=_MAX_MESSAGE)
        body = ControlBody.model_validate_json(text)
    except ValidationError as error:
        raise InvalidInput(
            "A text message is neither a new size nor a signal.",
            code="invalid_exec_message",
            hint='Send {"resize": [80, 24]} or {"signal": 15}.',
        ) from error
    if body.resize is not None:
        await session.resize(*body.resize)
    if body.signal is not None:
        await session.signal(body.signal)


async def _finish(socket: WebSocket, last: dict[str, Any]) -> None:
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # the client may be gone by now
        await socket.send_text(json.dumps(last, ensure_ascii=False))
        await socket.close()


routes: Final = (GuardedWebSocket(f"{BASE}/api/deployments/{{deployment}}/exec", exec_in_instance),)
