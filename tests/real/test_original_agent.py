"""An agent of the original finishes a deployment on a real LXD, and makes no second instance of it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed import images
from testbed.hosts import Host, TestbedError, wait_until
from testbed.original_agent import OriginalAgent
from testbed.server import Server, running_server

from .deploying import check_nothing_is_left, egg, names

ALIAS = "ubuntu/24.04"
USER_DATA = "#cloud-config\nruncmd:\n- echo configured > /root/configured\n"


@pytest.fixture(scope="module")
def ubuntu(lxd_host: Host) -> str:
    """The only alias that the original's agent knows; here it is the tiny system."""
    if reason := images.missing_for_tiny():
        pytest.skip(f"the tiny image: {reason}")
    try:
        lxd_host.cli("image", "alias", "create", ALIAS, _tiny(lxd_host))
    except TestbedError as error:
        if "already exists" not in str(error):
            raise
    return ALIAS


def _tiny(host: Host) -> str:
    found = json.loads(host.cli("image", "list", "--format=json").stdout)
    for image in found:
        if "tiny" in [alias["name"] for alias in image["aliases"]]:
            return str(image["fingerprint"])
    host.import_image(images.tiny_files(), "tiny")
    return _tiny(host)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with running_server(tmp_path) as started:
        started.import_egg(egg("old", USER_DATA))
        yield started


@pytest.fixture
def agent(server: Server, lxd_host: Host, ubuntu: str) -> Iterator[OriginalAgent]:
    cluster = server.post("/clusters", name="site", provider="lxd", connection_method="agent-poll")
    made = server.post("/clusters/site/enroll-original")
    yield OriginalAgent(server.address, cluster["cluster_id"], made["agent_key"], lxd_host.socket)
    check_nothing_is_left(lxd_host)


def deploy(server: Server, name: str, **more: Any) -> dict[str, Any]:
    return server.post("/deploy", egg="old", cluster="site", instance_name=name, image=ALIAS, **more)


def leases_pass(server: Server) -> None:
    """As if ten minutes had gone by."""
    with sqlite3.connect(server.data / "iceshelves.db", timeout=30) as database:
        database.execute("UPDATE operations SET lease_until = '2026-01-01 00:00:00.000000'")


def test_it_finishes_a_deployment(server: Server, agent: OriginalAgent, lxd_host: Host) -> None:
    assert agent.poll_once() == 0
    accepted = deploy(server, "orig", config_overrides={"limits.memory": "64MiB"})
    assert agent.poll_once() == 1
    operation = server.wait(accepted["operation_id"], 5)
    assert (operation["status"], operation["error"]) == ("succeeded", None)
    info = server.get(f"/deployments/{accepted['deployment_id']}")["instance_info"]
    assert (info["name"], info["status"]) == ("orig", "running")
    config = json.loads(lxd_host.cli("query", "/1.0/instances/orig").stdout)["config"]
    assert config["limits.memory"] == "64MiB"
    assert config["user.iceshelves.operation"] == accepted["operation_id"]

    def configured() -> bool:  # which the original by itself never did
        shown = lxd_host.cli("exec", "orig", "--", "cat", "/root/configured", check=False)
        return shown.stdout == "configured\n"

    wait_until(configured, "the guest's cloud-init")
    assert agent.poll_once() == 0
    assert any("does not wait for cloud-init" in line for line in server.logs(accepted["deployment_id"]))
    lxd_host.cli("delete", "--force", "orig")


def test_a_lost_end_makes_no_second_instance(server: Server, agent: OriginalAgent, lxd_host: Host) -> None:
    accepted = deploy(server, "lost")
    agent.lost = {"completed"}
    assert agent.poll_once() == 1
    born = json.loads(lxd_host.cli("query", "/1.0/instances/lost").stdout)["created_at"]
    assert agent.poll_once() == 0, "it is not offered again while its lease holds"
    leases_pass(server)
    agent.lost = set()
    assert agent.poll_once() == 1
    operation = server.wait(accepted["operation_id"], 5)
    assert agent.reports[-1][1] == "failed"
    assert operation["error"]["code"] == "instance_uncertain", operation["error"]
    assert accepted["operation_id"] in operation["error"]["hint"]
    assert names(lxd_host) == ["lost"]
    assert json.loads(lxd_host.cli("query", "/1.0/instances/lost").stdout)["created_at"] == born
    said = lxd_host.cli("config", "get", "lost", "user.iceshelves.operation").stdout.strip()
    assert said == accepted["operation_id"], "what the hint says to look at tells the truth"
    lxd_host.cli("delete", "--force", "lost")


def test_a_lost_answer_costs_a_lease(server: Server, agent: OriginalAgent, lxd_host: Host) -> None:
    """The offer never arrives: nothing is made, and after its lease it is offered again."""
    accepted = deploy(server, "again")
    stranger = OriginalAgent(server.address, agent.cluster_id, agent.key, Path("/nonexistent"))
    status, _ = stranger._post(f"/iceshelves/api/agent/poll/{agent.cluster_id}", b"")
    assert status == 200
    assert agent.poll_once() == 0
    leases_pass(server)
    assert agent.poll_once() == 1
    assert server.wait(accepted["operation_id"], 5)["status"] == "succeeded"
    lxd_host.cli("delete", "--force", "again")


def test_what_was_there_is_left_alone(server: Server, agent: OriginalAgent, lxd_host: Host) -> None:
    lxd_host.cli("init", ALIAS, "mine")
    accepted = deploy(server, "mine")
    agent.poll_once()
    operation = server.wait(accepted["operation_id"], 5)
    assert operation["error"]["code"] == "instance_exists", operation["error"]
    assert "user.iceshelves" not in lxd_host.cli("config", "show", "mine").stdout
    lxd_host.cli("delete", "mine")
