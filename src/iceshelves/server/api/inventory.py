"""Instances of all clusters: listed as they were last seen, looked at now, adopted and released."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final

from fastapi import Query
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from iceshelves.access.policy import Permission
from iceshelves.clusters.adoption import Outcome, Scan
from iceshelves.server.answers import Item, Listing
from iceshelves.server.call import Call, Caller
from iceshelves.server.routes import Routes
from iceshelves.server.schemas.common import ClusterPath, Failure, Named
from iceshelves.server.schemas.inventory import (
    ClusterScan,
    FoundInstance,
    InstanceItem,
    InstanceNames,
    InstanceOutcome,
    InstanceOutcomes,
    InstanceQuery,
    OwnershipCounts,
)
from iceshelves.store.queries import clusters
from iceshelves.store.queries import inventory as queries
from iceshelves.store.queries.pages import Row

INSTANCES: Final = Listing("instances", InstanceItem)
SCANNED: Final = Item(ClusterScan, description="What is there now, and whose")
ENDED: Final = Item(InstanceOutcomes, description="What became of each")

routes = Routes("instances")


@routes.add("GET", "/api/instances", Permission.CLUSTERS_READ, INSTANCES, errors=(404,))
def list_instances(call: Caller, wanted: Annotated[InstanceQuery, Query()]) -> Response:
    """List the instances of all clusters as they were last seen, ours or not."""
    with call.control.database.read() as session:
        chosen = queries.InstanceFilter(
            cluster_id=clusters.id_of(session, call.tenant_id, wanted.cluster) if wanted.cluster else None,
            ownership=wanted.ownership,
            search=wanted.search,
        )
        found = queries.page(session, call.tenant_id, chosen, wanted.window)
    return INSTANCES.answer_values([_item(row) for row in found.rows], found)


@routes.add(
    "POST", "/api/clusters/{cluster}/scan", Permission.CLUSTERS_READ, SCANNED, errors=(404, 502, 503, 504)
)
async def scan_cluster(call: Caller, cluster: ClusterPath) -> Response:
    """Look now which instances of a cluster are ours, adopted, nobody's of us or in conflict."""
    cluster_id = await run_in_threadpool(_id, call, cluster)
    return SCANNED.answer(_scan(await call.control.adoptions.scan(call.actor, cluster_id)))


@routes.add(
    "POST", "/api/clusters/{cluster}/adopt", Permission.CLUSTERS_WRITE, ENDED, errors=(404, 502, 503, 504)
)
async def adopt_instances(call: Caller, cluster: ClusterPath, body: InstanceNames) -> Response:
    """Mark instances that nobody has marked as adopted; nothing else of them is changed."""
    cluster_id = await run_in_threadpool(_id, call, cluster)
    return _ended(await call.control.adoptions.adopt(call.actor, cluster_id, body.names, call.request_id))


@routes.add(
    "POST", "/api/clusters/{cluster}/release", Permission.CLUSTERS_WRITE, ENDED, errors=(404, 502, 503, 504)
)
async def release_instances(call: Caller, cluster: ClusterPath, body: InstanceNames) -> Response:
    """Take the mark of adoption away from instances; nothing else of them is changed."""
    cluster_id = await run_in_threadpool(_id, call, cluster)
    return _ended(await call.control.adoptions.release(call.actor, cluster_id, body.names, call.request_id))


def _item(row: Row) -> InstanceItem:
    own = ("cluster",)
    return InstanceItem(
        **{name: getattr(row, name) for name in InstanceItem.model_fields if name not in own},
        cluster=Named(id=row.cluster_id, name=row.cluster_name),
    )


def _scan(scan: Scan) -> ClusterScan:
    found = [
        FoundInstance(
            name=judged.instance.name,
            kind=judged.instance.kind,
            power=judged.instance.power,
            member=judged.instance.member,
            architecture=judged.instance.architecture,
            image=judged.instance.image,
            description=judged.instance.description,
            ownership=judged.verdict.ownership,
            reason=judged.verdict.reason,
        )
        for judged in scan.instances
    ]
    counts = OwnershipCounts(**{ownership.value: number for ownership, number in scan.counts.items()})
    return ClusterScan(cluster=scan.cluster, counts=counts, instances=found)


def _ended(outcomes: Iterable[Outcome]) -> Response:
    results = [
        InstanceOutcome(
            name=outcome.name,
            ok=outcome.error is None,
            error=None if outcome.error is None else Failure.model_validate(outcome.error.to_json()),
            note=outcome.note,
        )
        for outcome in outcomes
    ]
    return ENDED.answer(InstanceOutcomes(done=sum(result.ok for result in results), results=results))


def _id(call: Call, reference: str) -> int:
    with call.control.database.read() as session:
        return clusters.id_of(session, call.tenant_id, reference)
