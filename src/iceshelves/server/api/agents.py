"""Agents: what people do about them, and the one round trip that they poll with."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Annotated, Final

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from iceshelves.access.policy import Permission
from iceshelves.core.errors import IceShelvesError
from iceshelves.core.log import logger
from iceshelves.core.together import until_one_ends
from iceshelves.deploy.agents import Known
from iceshelves.deploy.messages import Enrolment, Poll
from iceshelves.server import problems
from iceshelves.server.answers import Bare, Item
from iceshelves.server.call import Call, Caller, request_id_of, services_of
from iceshelves.server.routes import BASE, Routes, admit_agent
from iceshelves.server.schemas.agents import AgentChanged, AgentOrders, EnrolledAgent, Invitation
from iceshelves.server.schemas.common import ClusterPath
from iceshelves.store.queries import clusters as queries

INVITED: Final = Item(Invitation, 201, "The token, shown this once")
CHANGED: Final = Item(AgentChanged)
ENROLLED: Final = Bare(EnrolledAgent, 201, "The key, shown this once")
POLLED: Final = Bare(AgentOrders, description="What there is to do")
_TOKEN_SECONDS: Final = 3600
_CHUNK: Final = 64 * 1024

routes = Routes("agents")
_log: Final = logger(__name__)


def _shown(request: Request) -> Known:
    known: Known = request.state.agent
    return known


Visitor = Annotated[Known, Depends(_shown)]


@routes.add("POST", "/api/clusters/{cluster}/enroll", Permission.CLUSTERS_WRITE, INVITED, errors=(404, 409))
def invite_agent(call: Caller, cluster: ClusterPath) -> Response:
    """Make a one-time token for a cluster's agent."""
    cluster_id = _id(call, cluster)
    token = call.control.agents.invite(call.actor, cluster_id, call.request_id).reveal()
    return INVITED.answer(
        Invitation(cluster_id=cluster_id, token=token, expires_in=_TOKEN_SECONDS),
        headers={"Cache-Control": "no-store"},
    )


@routes.add(
    "POST", "/api/clusters/{cluster}/agent/revoke", Permission.CLUSTERS_WRITE, CHANGED, errors=(404, 409)
)
def revoke_agent(call: Caller, cluster: ClusterPath) -> Response:
    """Shut a cluster's agent out."""
    cluster_id = _id(call, cluster)
    call.control.agents.revoke(call.actor, cluster_id, call.request_id)
    return CHANGED.answer(AgentChanged(cluster_id=cluster_id, message="The agent is shut out."))


@routes.add("POST", "/api/agent/v1/enroll", "public", ENROLLED, errors=(401,))
def enroll(request: Request, enrolment: Enrolment) -> Response:
    """Exchange a one-time token for an agent's key."""
    enrolled = services_of(request).control.agents.enrol(enrolment)
    return _unstored(ENROLLED.answer(EnrolledAgent(enrolled)))


@routes.add("POST", "/api/agent/v1/poll", "agent", POLLED, errors=(409,))
async def poll(request: Request, visitor: Visitor, told: Poll) -> Response:
    """Take what an agent tells, and answer once there is something for it to do."""
    services = services_of(request)
    answer = await services.control.agents.poll(visitor, told, lambda: services.closing.begun)
    return _unstored(POLLED.answer(AgentOrders(answer)))


def _unstored(answer: Response) -> Response:
    """It may hold a key, or what a deployment is made of."""
    answer.headers["Cache-Control"] = "no-store"
    return answer


class AgentWebSocket(WebSocketRoute):
    """A websocket route for agents."""

    access = "agent"


async def carry_stream(socket: WebSocket) -> None:
    """Join the websocket that an agent has opened to the stream that it came for."""
    try:
        known = await admit_agent(socket)
        name = str(socket.path_params["stream"])
        end = services_of(socket).control.agents.streams.fetch(known.cluster_id, name)
    except IceShelvesError as error:
        await socket.send_denial_response(problems.answer(error, request_id_of(socket.scope)))
        return
    await socket.accept()
    reader, writer = await asyncio.open_connection(sock=end)
    try:
        await until_one_ends(_outward(socket, reader), _inward(socket, writer))
    except (OSError, RuntimeError, WebSocketDisconnect) as error:  # whichever end has gone
        _log.debug("a stream was cut: %r", error)
    finally:
        writer.close()
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):
            await socket.close()


async def _outward(socket: WebSocket, reader: asyncio.StreamReader) -> None:
    while data := await reader.read(_CHUNK):
        await socket.send_bytes(data)


async def _inward(socket: WebSocket, writer: asyncio.StreamWriter) -> None:
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        writer.write(message.get("bytes") or b"")
        await writer.drain()


def _id(call: Call, reference: str) -> int:
    with call.control.database.read() as session:
        return queries.id_of(session, call.tenant_id, reference)


streams: Final = (AgentWebSocket(f"{BASE}/api/agent/v1/streams/{{stream}}", carry_stream),)
