"""An agent beside a real Incus: it and its server die anywhere, and come back."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.sync.client import connect

from iceshelves.deploy.steps import PIPELINES
from real.deploying import (
    check_nothing_is_left,
    custom_volumes,
    delete,
    deploy,
    deploy_update_and_take_back_a_page,
    egg,
    names,
    running_operations,
)
from testbed.agents import AgentProcess, running_agent
from testbed.hosts import Host, wait_until
from testbed.server import Server, running_server

SLOW = """#cloud-config
runcmd:
  - echo begun
  - date >>/root/ran
  - sleep 1
"""


@pytest.fixture(autouse=True)
def nothing_left(incus_host: Host) -> Iterator[None]:
    """Each test must leave Incus as it found it."""
    yield
    check_nothing_is_left(incus_host)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with running_server(tmp_path) as running:
        running.post("/clusters", name="real", provider="incus", connection_method="agent-poll")
        yield running


@pytest.fixture
def agent(server: Server, incus_host: Host, tmp_path: Path) -> Iterator[AgentProcess]:
    with running_agent(server, "real", incus_host, tmp_path) as running:
        yield running


@pytest.mark.usefixtures("agent")
def test_a_page_is_served_updated_and_taken_back(server: Server, incus_host: Host, debian_image: str) -> None:
    deploy_update_and_take_back_a_page(server, incus_host, debian_image)


@pytest.mark.parametrize("step", PIPELINES["deploy"])
def test_a_killed_agent_goes_on(
    server: Server, agent: AgentProcess, incus_host: Host, tiny_image: str, step: str
) -> None:
    """SIGKILL in each step, or right behind it where the step is too quick to be met."""
    checks = [{"name": "slow", "command": ["sleep", "0.3"], "timeout": 20}]
    volumes = [{"name": "data", "path": "/data", "size": "64MiB"}]
    server.import_egg(egg("slow", SLOW, checks=checks, volumes=volumes))
    accepted = deploy(server, "slow", "killed", tiny_image)
    _wait_for(server, accepted["operation_id"], step)
    agent.kill()
    agent.start()
    _ended_well(server, incus_host, accepted)


def test_a_killed_server_is_waited_for(
    server: Server, agent: AgentProcess, incus_host: Host, tiny_image: str
) -> None:
    """The agent goes on without it, and tells it everything afterwards; it dies too, while nobody listens."""
    volumes = [{"name": "data", "path": "/data", "size": "64MiB"}]
    server.import_egg(egg("slow", SLOW, volumes=volumes))
    accepted = deploy(server, "slow", "killed", tiny_image)
    _wait_for(server, accepted["operation_id"], "cloud-init")
    port = server.address
    server.kill()
    wait_until(lambda: _has_run(incus_host), "the guest's own end", 20)
    agent.kill()
    server.start(listen=port)
    agent.start()
    _ended_well(server, incus_host, accepted)


def test_cancelled_while_the_agent_works(
    server: Server, agent: AgentProcess, incus_host: Host, tiny_image: str
) -> None:
    server.import_egg(egg("slow", SLOW.replace("sleep 1", "sleep 60")))
    accepted = deploy(server, "slow", "cancelled", tiny_image)
    server.wait_for_step(accepted["operation_id"], "cloud-init")
    server.post(f"/deployments/{accepted['deployment_id']}/cancel")
    assert server.wait(accepted["operation_id"])["status"] == "cancelled"
    assert names(incus_host) == []


@pytest.mark.usefixtures("agent")
def test_a_program_is_run_through_the_agent(server: Server, incus_host: Host, tiny_image: str) -> None:
    server.import_egg(egg("plain", "#cloud-config\n{}\n"))
    accepted = deploy(server, "plain", "reached", tiny_image)
    assert server.wait(accepted["operation_id"])["status"] == "succeeded"
    url = f"ws://{server.address}/iceshelves/api/deployments/{accepted['deployment_id']}/exec"
    with connect(url, additional_headers={"Authorization": f"Bearer {server.token}"}) as socket:
        socket.send(json.dumps({"command": ["sh", "-c", "hostname; exit 7"]}))
        received = list(socket)
    assert received[0] == b"\x01reached\n"
    assert json.loads(received[-1]) == {"exit": 7}
    delete(server, accepted["deployment_id"])


def test_an_agent_that_only_polls(
    server: Server, agent: AgentProcess, incus_host: Host, tiny_image: str, tmp_path: Path
) -> None:
    """Nothing live, but what it is for: the next poll brings the work."""
    server.import_egg(egg("plain", "#cloud-config\n{}\n"))
    server.call("PATCH", "/clusters/real", {"agent_long_poll": False, "agent_poll_interval": 60})
    agent.stop()
    accepted = deploy(server, "plain", "polled", tiny_image)
    agent.start()
    assert server.wait(accepted["operation_id"], 60)["status"] == "succeeded"
    assert server.call("POST", "/clusters/real/scan").body.get("error_code") == "agent_only_polls"
    server.call("PATCH", "/clusters/real", {"agent_long_poll": True})
    agent.stop()
    agent.start()
    delete(server, accepted["deployment_id"])


def test_what_is_beside_the_agent_is_known(
    server: Server, agent: AgentProcess, incus_host: Host, tiny_image: str
) -> None:
    incus_host.cli("launch", tiny_image, "stranger")

    def known() -> bool:
        found = server.get("/instances?cluster=real")["instances"]
        return [entry["name"] for entry in found] == ["stranger"]

    wait_until(known, "the stranger in the inventory", 15)
    incus_host.cli("delete", "--force", "stranger")
    wait_until(lambda: server.get("/instances?cluster=real")["instances"] == [], "its end", 15)
    assert server.get("/clusters/real")["health"]["status"] == "active"


def _has_run(host: Host) -> bool:
    return host.cli("exec", "killed", "--", "cat", "/root/ran", check=False).returncode == 0


def _wait_for(server: Server, operation_id: str, step: str) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = server.get(f"/operations/{operation_id}")
        if {entry["name"]: entry["status"] for entry in found["steps"]}[step] != "pending":
            return


def _ended_well(server: Server, host: Host, accepted: dict[str, str]) -> None:
    operation = server.wait(accepted["operation_id"])
    assert operation["status"] == "succeeded", operation["error"]
    assert names(host) == ["killed"]
    assert custom_volumes(host) == ["killed-data"]
    ran = host.cli("exec", "killed", "--", "cat", "/root/ran").stdout
    assert len(ran.splitlines()) == 1
    assert server.logs(int(accepted["deployment_id"])).count("begun") == 1
    wait_until(lambda: running_operations(host) == [], "the end of Incus' own work", 10)
    delete(server, int(accepted["deployment_id"]))
