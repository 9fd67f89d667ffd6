"""Instances of all clusters, scanned, adopted and released, over the API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from iceshelves.clusters.inventory import record_full
from iceshelves.connections.values import Scenario
from iceshelves.providers.fake.world import FakeInstance, FakeWorld, as_instance, forget_world, open_world


@pytest.fixture
def world() -> Iterator[FakeWorld]:
    """The world of the cluster ``lab``, with two instances that nobody has marked."""
    world = open_world(Scenario("unit-lab"))
    for name in ("alpha", "beta"):
        world.state.instances[name] = FakeInstance(name, "container", "f" * 64, None, power="running")
    yield world
    forget_world("unit-lab")


def know(server: Any, world: FakeWorld) -> None:
    """What the server would have learnt in a moment."""
    record_full(server.control.database, 1, [as_instance(each) for each in world.state.instances.values()])


def test_all_instances_are_one_list(world: FakeWorld, server: Any) -> None:
    know(server, world)
    found = server.get("/api/instances").json()
    assert found["total"] == 2
    assert [entry["name"] for entry in found["instances"]] == ["alpha", "beta"]
    first = found["instances"][0]
    assert first["cluster"] == {"id": 1, "name": "lab"}
    assert (first["ownership"], first["deployment_id"], first["power"]) == ("foreign", None, "running")
    for query, total in (("?cluster=lab", 2), ("?cluster=1", 2), ("?search=ALP", 1), ("?ownership=ours", 0)):
        assert server.get(f"/api/instances{query}").json()["total"] == total
    assert server.get("/api/instances?per_page=1&page=2").json()["instances"][0]["name"] == "beta"
    assert server.get("/api/instances?cluster=none").status_code == 404
    assert server.get("/api/instances?ownership=mine").status_code == 400
    assert server.get("/api/instances", "stranger").json()["total"] == 0


def test_scan_adopt_and_release(world: FakeWorld, server: Any) -> None:
    before = server.post("/api/clusters/lab/scan", "viewer").json()
    assert before["counts"] == {"ours": 0, "adopted": 0, "foreign": 2, "conflict": 0}
    assert [entry["ownership"] for entry in before["instances"]] == ["foreign", "foreign"]
    ended = server.post("/api/clusters/lab/adopt", json={"names": ["alpha", "none"]}).json()
    assert ended["done"] == 1
    assert [result["ok"] for result in ended["results"]] == [True, False]
    assert ended["results"][1]["error"]["code"] == "instance_not_found"
    listed = server.get("/api/instances?ownership=adopted").json()["instances"]
    assert [entry["name"] for entry in listed] == ["alpha"]
    assert world.state.instances["beta"].mark is None
    assert server.post("/api/clusters/lab/release", json={"names": ["alpha"]}).json()["done"] == 1
    assert world.state.instances["alpha"].mark is None
    actions = [entry["action"] for entry in server.get("/api/audit").json()["audit"]]
    assert actions[:2] == ["cluster.release", "cluster.adopt"]


def test_what_cannot_be_done_is_told(world: FakeWorld, server: Any) -> None:
    for body, code in (({}, "no_instances_named"), ({"names": ["a/b"]}, "invalid_request")):
        answer = server.post("/api/clusters/lab/adopt", json=body)
        assert (answer.status_code, answer.json()["error_code"]) == (400, code)
    refused = server.post("/api/clusters/lab/adopt", "operator", json={"names": ["alpha"]})
    assert refused.status_code == 403
    world.rewrite({"faults": [{"action": "instances"}]})
    assert server.post("/api/clusters/lab/scan").status_code == 503
