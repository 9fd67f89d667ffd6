"""The original's agents: the two addresses that they know, answering as the original would."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Final

from fastapi import Path
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from iceshelves.access.policy import Permission
from iceshelves.core.errors import InvalidInput, NotFound, Unauthenticated
from iceshelves.deploy.original_agent import Report
from iceshelves.server import problems
from iceshelves.server.answers import Bare, Item
from iceshelves.server.api.agents import Visitor
from iceshelves.server.call import Caller, services_of
from iceshelves.server.routes import BASE, GuardedRoute, Routes
from iceshelves.server.schemas.common import ClusterPath
from iceshelves.server.schemas.original_agent import (
    OfferedDeployment,
    OfferedDeployments,
    OriginalKeyShown,
    PlainRefusal,
    StatusTaken,
)
from iceshelves.store.queries import clusters as queries

MADE: Final = Item(OriginalKeyShown, 201, "The key, shown this once")
OFFERED: Final = Bare(OfferedDeployments, description="What there is to do")
TAKEN: Final = Bare(StatusTaken, description="The report was taken, or told of what has ended before")
_UNREADABLE: Final = Bare(PlainRefusal, 400, "The request cannot be read")
_STRANGER: Final = Bare(PlainRefusal, 401, "The key is not that of this cluster's agent")
_UNKNOWN: Final = Bare(PlainRefusal, 404, "There is no such deployment on the agent's cluster")
#: what the original calls a number, but reads from the address as text
Number = Annotated[str, Path(examples=["1"])]

routes = Routes("agents")


class OriginalRoute(GuardedRoute):
    """A route for the original's agents: its refusals have the original's one member, ``error``."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The guarded handling, with its refusals in other words."""
        inner = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await inner(request)
            except problems.TooLarge:
                raise
            except Unauthenticated:
                return _STRANGER.answer(PlainRefusal(error="Invalid agent key"))
            except NotFound:
                return _UNKNOWN.answer(PlainRefusal(error="Deployment not found"))
            except (InvalidInput, RequestValidationError) as error:
                return _unreadable(error)
            except HTTPException as error:  # the framework's own, around what reading the body raised
                if error.status_code != 400 or isinstance(error.__cause__, problems.TooLarge):
                    raise
                return _unreadable(error.__cause__)

        return handle


@routes.add("POST", "/api/clusters/{cluster}/enroll-original", Permission.CLUSTERS_WRITE, MADE,
            errors=(404, 409))  # fmt: skip
def make_original_key(call: Caller, cluster: ClusterPath) -> Response:
    """Make a key for an agent of the original."""
    with call.control.database.read() as session:
        cluster_id = queries.id_of(session, call.tenant_id, cluster)
    made = call.control.original_agents.enrol(call.actor, cluster_id, call.request_id)
    shown = OriginalKeyShown(
        cluster_id=made.cluster_id, agent_key=made.key.reveal(), poll_interval=made.poll_interval
    )
    return MADE.answer(shown, headers={"Cache-Control": "no-store"})


def poll_as_original(request: Request, visitor: Visitor, cluster: Number) -> Response:
    """Hand deployments to an agent of the original."""
    offers = services_of(request).control.original_agents.poll(visitor, _number(cluster))
    return OFFERED.answer(OfferedDeployments(deployments=[OfferedDeployment(offer) for offer in offers]))


def report_as_original(request: Request, visitor: Visitor, deployment: Number, told: Report) -> Response:
    """Take what an agent of the original reports."""
    services_of(request).control.original_agents.report(visitor, _number(deployment), told)
    return TAKEN.answer(StatusTaken())


def _number(text: str) -> int:
    """The id that ``text`` is; 0, which nothing has, where it is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _unreadable(error: BaseException | None) -> Response:
    words = error.message if isinstance(error, InvalidInput) else "The request's body cannot be used"
    if isinstance(error, RequestValidationError) and error.errors():
        first = error.errors()[0]
        words = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return _UNREADABLE.answer(PlainRefusal(error=words))


def _wire(path: str, handler: Callable[..., Response], *answers: Bare) -> OriginalRoute:
    return OriginalRoute(
        f"{BASE}{path}",
        handler,
        methods=["POST"],
        access="agent",
        answers=answers,
        tags=["agents"],
        status_code=200,
        operation_id=handler.__name__,
        summary=(handler.__doc__ or "").rstrip("."),
    )


wire: Final = (
    _wire("/api/agent/poll/{cluster}", poll_as_original, OFFERED, _UNREADABLE, _STRANGER),
    _wire("/api/agent/status/{deployment}", report_as_original, TAKEN, _UNREADABLE, _STRANGER, _UNKNOWN),
)
