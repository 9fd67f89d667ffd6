"""Members of a cluster."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Query
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from iceshelves.access.policy import Permission
from iceshelves.server.answers import Item, Listing
from iceshelves.server.call import Call, Caller
from iceshelves.server.routes import Routes
from iceshelves.server.schemas.common import ClusterPath, Paging
from iceshelves.server.schemas.members import MemberItem, MemberPath
from iceshelves.store.queries import clusters as queries
from iceshelves.store.queries.pages import Slice

MEMBERS: Final = Listing("members", MemberItem)
CHANGED: Final = Item(MemberItem, description="The member, as it is now")

routes = Routes("clusters")


@routes.add(
    "GET",
    "/api/clusters/{cluster}/members",
    Permission.CLUSTERS_READ,
    MEMBERS,
    errors=(404, 409, 502, 503, 504),
)
async def list_members(call: Caller, cluster: ClusterPath, wanted: Annotated[Paging, Query()]) -> Response:
    """List the members of a cluster as they are now; a single server is its own only member."""
    found = await call.control.members.list(call.actor, await run_in_threadpool(_id, call, cluster))
    window = wanted.window
    rows = found[window.offset : window.offset + window.per_page]
    return MEMBERS.answer(Slice(rows, len(found), window))


@routes.add(
    "POST",
    "/api/clusters/{cluster}/members/{member}/evacuate",
    Permission.CLUSTERS_WRITE,
    CHANGED,
    errors=(404, 409, 502, 503, 504),
)
async def evacuate_member(call: Caller, cluster: ClusterPath, member: MemberPath) -> Response:
    """Move the instances of a member away and place none there; answers when it is done, if nobody leaves."""
    cluster_id = await run_in_threadpool(_id, call, cluster)
    changed = await call.control.members.change(call.actor, cluster_id, member, "evacuate", call.request_id)
    return CHANGED.answer(MemberItem.model_validate(changed))


@routes.add(
    "POST",
    "/api/clusters/{cluster}/members/{member}/restore",
    Permission.CLUSTERS_WRITE,
    CHANGED,
    errors=(404, 409, 502, 503, 504),
)
async def restore_member(call: Caller, cluster: ClusterPath, member: MemberPath) -> Response:
    """Take an evacuated member into use again and bring its instances back."""
    cluster_id = await run_in_threadpool(_id, call, cluster)
    changed = await call.control.members.change(call.actor, cluster_id, member, "restore", call.request_id)
    return CHANGED.answer(MemberItem.model_validate(changed))


def _id(call: Call, reference: str) -> int:
    with call.control.database.read() as session:
        return queries.id_of(session, call.tenant_id, reference)
