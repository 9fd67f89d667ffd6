"""Clusters."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Query
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from iceshelves.access.policy import Permission
from iceshelves.clusters.requests import ClusterAddress, ClusterChange, NewCluster
from iceshelves.clusters.rows import Act
from iceshelves.server import shown_clusters
from iceshelves.server.answers import Item, Listing
from iceshelves.server.call import Call, Caller
from iceshelves.server.routes import Routes
from iceshelves.server.schemas.clusters import (
    AcceptCertificateBody,
    AcceptHostKeyBody,
    ChangedCluster,
    ClusterChangeBody,
    ClusterDetail,
    ClusterItem,
    ClusterLook,
    ClusterLookBody,
    ClusterTest,
    CreatedCluster,
    DeletedCluster,
    NewClusterBody,
    RotatedKey,
)
from iceshelves.server.schemas.common import ClusterPath, Paging
from iceshelves.store.queries import clusters as queries
from iceshelves.store.queries.pages import Row

CLUSTERS: Final = Listing("clusters", ClusterItem)
CLUSTER: Final = Item(ClusterDetail, description="The cluster")
CREATED: Final = Item(CreatedCluster, 201, "The cluster is managed now")
LOOK: Final = Item(ClusterLook, description="What the servers show")
CHANGED: Final = Item(ChangedCluster)
ROTATED: Final = Item(RotatedKey, description="How far it has come")
TESTED: Final = Item(ClusterTest, description="What the test found")
DELETED: Final = Item(DeletedCluster)

routes = Routes("clusters")


@routes.add("GET", "/api/clusters", Permission.CLUSTERS_READ, CLUSTERS)
def list_clusters(call: Caller, wanted: Annotated[Paging, Query()]) -> Response:
    """List the clusters."""
    with call.control.database.read() as session:
        return CLUSTERS.answer(queries.page(session, call.tenant_id, wanted.window))


@routes.add("GET", "/api/clusters/{cluster}", Permission.CLUSTERS_READ, CLUSTER, errors=(404,))
def show_cluster(call: Caller, cluster: ClusterPath) -> Response:
    """Show one cluster, by number or name."""
    with call.control.database.read() as session:
        return CLUSTER.answer(shown_clusters.cluster(queries.find(session, call.tenant_id, cluster)))


@routes.add("POST", "/api/clusters", Permission.CLUSTERS_WRITE, CREATED, errors=(409, 502, 504))
async def add_cluster(call: Caller, body: NewClusterBody) -> Response:
    """Manage a hypervisor system from now on."""
    new = NewCluster.model_validate(body.model_dump(exclude={"is_cluster"}))
    added = await call.control.clusters.connect(call.actor, new, call.request_id)
    row = await run_in_threadpool(_row, call, str(added.cluster_id))
    return CREATED.answer(shown_clusters.created(row, added.trusted))


@routes.add("POST", "/api/clusters/look", Permission.CLUSTERS_WRITE, LOOK, errors=(403, 502, 504))
async def look_at_cluster(call: Caller, body: ClusterLookBody) -> Response:
    """See which certificate or host keys the servers on the way to a cluster show; nothing is kept."""
    wanted = ClusterAddress.model_validate(body.model_dump())
    found = await call.control.clusters.look(wanted)
    return LOOK.answer(shown_clusters.look(found))


@routes.add("PATCH", "/api/clusters/{cluster}", Permission.CLUSTERS_WRITE, CHANGED, errors=(404,))
def change_cluster(call: Caller, cluster: ClusterPath, body: ClusterChangeBody) -> Response:
    """Change a cluster's description, address, project, limit or options."""
    act = _act(call, cluster)
    change = ClusterChange.model_validate(body.model_dump(exclude_unset=True))
    call.control.clusters.change(act, change)
    return CHANGED.answer(ChangedCluster(cluster_id=act.cluster_id, message="It is changed."))


@routes.add("POST", "/api/clusters/{cluster}/look", Permission.CLUSTERS_WRITE, LOOK, errors=(404, 502, 504))
async def look_at_managed_cluster(call: Caller, cluster: ClusterPath) -> Response:
    """See what the servers on the way to a cluster show now, beside what they have to show."""
    act = await run_in_threadpool(_act, call, cluster)
    found = await call.control.clusters.pins.look(act)
    return LOOK.answer(shown_clusters.look(found))


@routes.add(
    "POST",
    "/api/clusters/{cluster}/accept-certificate",
    Permission.CLUSTERS_WRITE,
    CHANGED,
    errors=(404, 502, 504),
)
async def accept_certificate(call: Caller, cluster: ClusterPath, body: AcceptCertificateBody) -> Response:
    """Trust the certificate that the server shows now, if it is the one that is named."""
    act = await run_in_threadpool(_act, call, cluster)
    accepted = await call.control.clusters.pins.accept_certificate(act, body.fingerprint)
    return CHANGED.answer(ChangedCluster(cluster_id=act.cluster_id, message=f"{accepted} is trusted now."))


@routes.add(
    "POST",
    "/api/clusters/{cluster}/accept-host-key",
    Permission.CLUSTERS_WRITE,
    CHANGED,
    errors=(404, 502, 504),
)
async def accept_host_key(call: Caller, cluster: ClusterPath, body: AcceptHostKeyBody) -> Response:
    """Trust the host key that an SSH server on the way shows now, if it is the one that is named."""
    act = await run_in_threadpool(_act, call, cluster)
    accepted = await call.control.clusters.pins.accept_host_key(act, body.fingerprint, body.host)
    return CHANGED.answer(ChangedCluster(cluster_id=act.cluster_id, message=f"{accepted} is trusted now."))


@routes.add(
    "POST", "/api/clusters/{cluster}/rotate", Permission.CLUSTERS_WRITE, ROTATED, errors=(404, 502, 504)
)
async def rotate_cluster_key(call: Caller, cluster: ClusterPath) -> Response:
    """Renew our key to a cluster; asked again, a rotation that was begun goes on."""
    act = await run_in_threadpool(_act, call, cluster)
    return ROTATED.answer(shown_clusters.rotated(await call.control.rotate_key(act)))


@routes.add("POST", "/api/clusters/{cluster}/test", Permission.CLUSTERS_READ, TESTED, errors=(404, 502, 504))
async def test_cluster(call: Caller, cluster: ClusterPath) -> Response:
    """Try the connection to a cluster, step by step."""
    cluster_id = await run_in_threadpool(_id, call, cluster)
    return TESTED.answer(
        shown_clusters.cluster_test(await call.control.clusters.test(call.actor, cluster_id))
    )


@routes.add("DELETE", "/api/clusters/{cluster}", Permission.CLUSTERS_WRITE, DELETED, errors=(404, 409))
def delete_cluster(call: Caller, cluster: ClusterPath) -> Response:
    """Manage a cluster no more; nothing on it is touched."""
    cluster_id = _id(call, cluster)
    call.control.clusters.delete(call.actor, cluster_id, call.request_id)
    return DELETED.answer(DeletedCluster(cluster_id=cluster_id, message="It is managed no more."))


def _act(call: Call, reference: str) -> Act:
    return Act(call.actor, _id(call, reference), call.request_id)


def _row(call: Call, reference: str) -> Row:
    with call.control.database.read() as session:
        return queries.find(session, call.tenant_id, reference)


def _id(call: Call, reference: str) -> int:
    with call.control.database.read() as session:
        return queries.id_of(session, call.tenant_id, reference)
