"""A real cluster of three: placement, evacuation, a member whose plug is pulled, a member that is added."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from real.deploying import deploy, egg
from testbed import images
from testbed.cluster import Cluster, running_cluster
from testbed.hosts import INCUS, LXD, Hypervisor, missing_for_hosts
from testbed.server import Server, running_server

pytestmark = pytest.mark.slow

QUICK = "#cloud-config\nruncmd:\n  - date >>/root/ran\n"
SLOW = "#cloud-config\nruncmd:\n  - sleep 3\n  - date >>/root/ran\n"
#: how a deployment may end whose member has died: it was away too long, or came back with a stopped guest
BECAUSE_IT_DIED = {"member_offline", "member_unreachable", "instance_stopped", "instance_not_running"}
VOLUMES = [{"name": "data", "path": "/data", "size": "64MiB"}]


@pytest.fixture(scope="module", params=[INCUS, LXD], ids=lambda hypervisor: hypervisor.family)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    hypervisor: Hypervisor = request.param
    if reason := missing_for_hosts(hypervisor) or images.missing_for_tiny():
        pytest.skip(f"a cluster of {hypervisor.family}: {reason}")
    with running_cluster(hypervisor) as running:
        running.first.import_image(images.tiny_files(), "tiny")
        yield running


@pytest.fixture(scope="module")
def server(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("server")) as running:
        running.post(
            "/clusters",
            name="real",
            provider=cluster.hypervisor.family,
            endpoint_url=str(cluster.first.socket),
        )
        running.import_egg(egg("quick", QUICK))
        running.import_egg(egg("slow", SLOW))
        running.import_egg(egg("keeper", QUICK, volumes=VOLUMES))
        yield running


@pytest.fixture(autouse=True)
def nothing_left(cluster: Cluster) -> Iterator[None]:
    """Each test must leave the cluster whole and empty."""
    yield
    left = cluster.instances()
    for name in left:
        cluster.first.cli("delete", "--force", name)
    assert (left, set(cluster.statuses().values())) == ({}, {"Online"})


def succeeded(server: Server, accepted: dict[str, Any]) -> None:
    operation = server.wait(accepted["operation_id"])
    assert operation["status"] == "succeeded", operation["error"]


def delete_all(server: Server) -> None:
    found = server.get("/deployments?per_page=100")["deployments"]
    begun = [server.call("DELETE", f"/deployments/{deployment['id']}").body for deployment in found]
    for one in begun:
        succeeded(server, one)


def members(server: Server) -> dict[str, dict[str, Any]]:
    return {member["name"]: member for member in server.get("/clusters/real/members")["members"]}


def change(server: Server, member: str, action: str) -> dict[str, Any]:
    return server.post(f"/clusters/real/members/{member}/{action}")


def ran(cluster: Cluster, name: str) -> int:
    """How often the guest ``name`` was configured."""
    return len(cluster.first.cli("exec", name, "--", "cat", "/root/ran").stdout.splitlines())


def test_members_tell_their_roles_and_what_room_they_have(cluster: Cluster, server: Server) -> None:
    found = members(server)
    assert list(found) == ["m1", "m2", "m3"]
    assert any("database" in role for member in found.values() for role in member["roles"])
    for member in found.values():
        assert (member["online"], member["evacuated"], member["automatic"]) == (True, False, True)
        capacity = member["capacity"]
        assert 0 < capacity["memory_used"] < capacity["memory"]
        assert 0 < capacity["storage_used"] < capacity["storage"]
        assert (capacity["cpus"] > 0, capacity["instances"]) == (True, 0)


def test_named_members_are_taken_and_the_others_spread(cluster: Cluster, server: Server) -> None:
    named = deploy(server, "quick", "named", "tiny", target_member="m3")
    accepted = [deploy(server, "keeper", f"spread-{n}", "tiny") for n in range(5)]
    for one in (named, *accepted):
        succeeded(server, one)
    placed = cluster.instances()
    assert placed["named"] == "m3"
    assert Counter(placed.values()) == {"m1": 2, "m2": 2, "m3": 2}
    volumes = cluster.query("/1.0/storage-pools/default/volumes/custom?recursion=1")
    assert {v["name"].removesuffix("-data"): v["location"] for v in volumes} == {
        name: member for name, member in placed.items() if name != "named"
    }
    assert {name: member["capacity"]["instances"] for name, member in members(server).items()} == {
        "m1": 2, "m2": 2, "m3": 2,
    }  # fmt: skip
    delete_all(server)


def test_a_member_is_evacuated_and_restored(cluster: Cluster, server: Server) -> None:
    succeeded(server, moving := deploy(server, "quick", "moving", "tiny", target_member="m2"))
    for _ in range(2):
        changed = change(server, "m2", "evacuate")
        assert (changed["status"], changed["capacity"]["instances"]) == ("Evacuated", 0)
    assert cluster.instances()["moving"] != "m2"
    refused = server.wait(deploy(server, "quick", "refused", "tiny", target_member="m2")["operation_id"])
    assert refused["error"]["code"] == "member_evacuated"
    assert "m2 (evacuated)" in refused["error"]["hint"]
    others = [deploy(server, "quick", f"other-{n}", "tiny") for n in range(4)]
    update = server.post(f"/deployments/{moving['deployment_id']}/update")
    for one in (*others, update):
        succeeded(server, one)
    assert "m2" not in cluster.instances().values()
    for _ in range(2):
        assert change(server, "m2", "restore")["status"] == "Online"
    assert cluster.instances()["moving"] == "m2"
    assert cluster.first.cli("exec", "moving", "--", "hostname").stdout == "moving\n"
    delete_all(server)


def test_a_member_dies_under_its_deployments(cluster: Cluster, server: Server) -> None:
    """What is meant for it waits, or ends with the reason; what is not goes on undelayed; never two."""
    far = deploy(server, "slow", "far", "tiny", target_member="m3")
    server.wait_for_step(far["operation_id"], "cloud-init")
    near = deploy(server, "keeper", "near", "tiny", target_member="m3")
    server.wait_for_step(near["operation_id"], "create")
    cluster.members["m3"].kill()
    began = time.monotonic()
    for number, wanted in enumerate(("m1", "m2", None)):
        succeeded(server, deploy(server, "quick", f"alive-{number}", "tiny", target_member=wanted))
    assert time.monotonic() - began < 15
    assert cluster.instances()["alive-2"] != "m3"

    cluster.wait_for("m3", "Offline")
    began = time.monotonic()
    found = members(server)
    assert time.monotonic() - began < 4
    assert (found["m3"]["online"], found["m3"]["capacity"]) == (False, None)
    assert "eartbeat" in found["m3"]["message"]
    assert found["m2"]["capacity"] is not None
    refused = server.wait(deploy(server, "quick", "refused", "tiny", target_member="m3")["operation_id"])
    assert refused["error"]["code"] == "member_offline"
    assert "m3 (offline)" in refused["error"]["hint"]
    assert server.call("POST", "/clusters/real/members/m3/evacuate").status == 409

    cluster.members["m3"].start()
    cluster.wait_for("m3", "Online")
    for doomed in (far, near):
        operation = server.wait(doomed["operation_id"], 180)
        if operation["status"] != "succeeded":
            assert operation["error"]["code"] in BECAUSE_IT_DIED, operation["error"]
            succeeded(server, server.post(f"/deployments/{doomed['deployment_id']}/retry"))
    placed = cluster.instances()
    assert (placed["far"], placed["near"]) == ("m3", "m3")
    assert sorted(placed) == ["alive-0", "alive-1", "alive-2", "far", "near"]
    assert (ran(cluster, "far"), ran(cluster, "near")) == (1, 1)
    delete_all(server)


def test_a_member_that_is_added_is_seen_and_used(cluster: Cluster, server: Server) -> None:
    for name in ("m1", "m2", "m3"):
        succeeded(server, deploy(server, "quick", f"old-{name}", "tiny", target_member=name))
    cluster.grow()
    assert list(members(server)) == ["m1", "m2", "m3", "m4"]
    succeeded(server, deploy(server, "quick", "newest", "tiny", target_member="auto"))
    assert cluster.instances()["newest"] == "m4"
    delete_all(server)
