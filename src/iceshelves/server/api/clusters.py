"""Clusters."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Query
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from iceshelves.access.policy import Permission
from iceshelves.deploy.requests import NewCluster
from iceshelves.server import shown
from iceshelves.server.answers import Item, Listing
from iceshelves.server.call import Call, Caller
from iceshelves.server.routes import Routes
from iceshelves.server.schemas.clusters import (
    ClusterDetail,
    ClusterItem,
    ClusterTest,
    CreatedCluster,
    DeletedCluster,
    NewClusterBody,
)
from iceshelves.server.schemas.common import ClusterPath, Paging
from iceshelves.store.queries import clusters as queries

CLUSTERS: Final = Listing("clusters", ClusterItem)
CLUSTER: Final = Item(ClusterDetail, description="The cluster")
CREATED: Final = Item(CreatedCluster, 201, "The cluster is managed now")
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
        return CLUSTER.answer(shown.cluster(queries.find(session, call.tenant_id, cluster)))


@routes.add("POST", "/api/clusters", Permission.CLUSTERS_WRITE, CREATED, errors=(409,))
def add_cluster(call: Caller, body: NewClusterBody) -> Response:
    """Manage a hypervisor system from now on."""
    new = NewCluster.model_validate(body.model_dump())
    cluster_id = call.control.clusters.add(call.actor, new, call.request_id)
    return CREATED.answer(CreatedCluster(cluster_id=cluster_id, message=f"{new.name} is managed now."))


@routes.add("POST", "/api/clusters/{cluster}/test", Permission.CLUSTERS_READ, TESTED, errors=(404, 502, 504))
async def test_cluster(call: Caller, cluster: ClusterPath) -> Response:
    """Try the connection to a cluster, step by step."""
    cluster_id = await run_in_threadpool(_id, call, cluster)
    return TESTED.answer(shown.cluster_test(await call.control.clusters.test(call.actor, cluster_id)))


@routes.add("DELETE", "/api/clusters/{cluster}", Permission.CLUSTERS_WRITE, DELETED, errors=(404, 409))
def delete_cluster(call: Caller, cluster: ClusterPath) -> Response:
    """Manage a cluster no more; nothing on it is touched."""
    cluster_id = _id(call, cluster)
    call.control.clusters.delete(call.actor, cluster_id, call.request_id)
    return DELETED.answer(DeletedCluster(cluster_id=cluster_id, message="It is managed no more."))


def _id(call: Call, reference: str) -> int:
    with call.control.database.read() as session:
        return queries.id_of(session, call.tenant_id, reference)
