"""The same deployments over every connection method: what happens and what is said does not depend on it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from real.deploying import (
    check_nothing_is_left,
    custom_volumes,
    delete,
    deploy,
    egg,
    names,
    running_operations,
)
from testbed.agents import running_agent
from testbed.hosts import Host, wait_until
from testbed.https import Https
from testbed.server import Server, running_server
from testbed.sshd import missing_for_sshd, running_sshd

METHODS = ("socket", "direct", "ssh", "agent")
VOLUMES = [{"name": "data", "path": "/data", "size": "64MiB"}]
KEEPER = "#cloud-config\nruncmd:\n  - date >>/data/boots\n"
#: what went wrong over the first method of a family, for the others to compare with
_said: dict[tuple[str, str], dict[str, Any]] = {}


@dataclass
class Managed:
    """A hypervisor that a server manages under the name ``real``."""

    server: Server
    host: Host


@pytest.fixture(params=[f"{family}-{method}" for family in ("incus", "lxd") for method in METHODS])
def managed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Managed]:
    family, method = str(request.param).split("-")
    request.getfixturevalue("tiny_image" if family == "incus" else "lxd_tiny_image")
    host: Host = request.getfixturevalue(f"{family}_host")
    with ExitStack() as stack:
        server = stack.enter_context(running_server(tmp_path))
        if method == "socket":
            server.post("/clusters", name="real", provider=family, endpoint_url=str(host.socket))
        elif method == "direct":
            token = Https.of(host).token(f"methods-{tmp_path.name}")
            server.post(
                "/clusters", name="real", provider=family, connection_method="direct-api", trust_token=token
            )
        elif method == "ssh":
            _add_by_ssh(server, host, stack)
        else:
            server.post("/clusters", name="real", provider=family, connection_method="agent-poll")
            stack.enter_context(running_agent(server, "real", host, tmp_path))
        yield Managed(server, host)
    check_nothing_is_left(host)


def _add_by_ssh(server: Server, host: Host, stack: ExitStack) -> None:
    if reason := missing_for_sshd():
        pytest.skip(f"SSH: {reason}")
    connection = stack.enter_context(running_sshd(host)).connection
    (hop,) = connection.hops
    assert connection.key is not None
    server.post(
        "/clusters",
        name="real",
        provider=host.hypervisor.family,
        connection_method="ssh",
        endpoint_url=f"ssh://{hop.user}@{hop.host}:{hop.port}{connection.path}",
        ssh_key=connection.key.reveal(),
        ssh_host_key=hop.host_key,
    )


def test_deployed_replaced_reached_and_deleted(managed: Managed) -> None:
    server, host = managed.server, managed.host
    server.import_egg(egg("keeper", KEEPER, volumes=VOLUMES))
    accepted = deploy(server, "keeper", "kept", "tiny")
    where = f"/deployments/{accepted['deployment_id']}"
    _succeeded(server, accepted)
    before = server.get(where)["instance_info"]["ipv4"]
    _succeeded(server, server.post(f"{where}/update"))
    assert server.get(where)["instance_info"]["ipv4"] == before
    assert len(host.cli("exec", "kept", "--", "cat", "/data/boots").stdout.splitlines()) == 2

    url = f"ws://{server.address}/iceshelves/api{where}/exec"
    with connect(url, additional_headers={"Authorization": f"Bearer {server.token}"}) as socket:
        socket.send(json.dumps({"command": ["sh", "-c", "hostname; exit 7"]}))
        received = list(socket)
    assert (received[0], json.loads(received[-1])) == (b"\x01kept\n", {"exit": 7})

    delete(server, accepted["deployment_id"])
    assert (names(host), custom_volumes(host)) == ([], [])


def test_cancelled_and_nothing_is_left(managed: Managed) -> None:
    server, host = managed.server, managed.host
    server.import_egg(egg("sleeper", "#cloud-config\nruncmd:\n  - sleep 60\n", volumes=VOLUMES))
    accepted = deploy(server, "sleeper", "asleep", "tiny")
    server.wait_for_step(accepted["operation_id"], "cloud-init")
    server.post(f"/deployments/{accepted['deployment_id']}/cancel")
    assert server.wait(accepted["operation_id"])["status"] == "cancelled"
    wait_until(lambda: running_operations(host) == [], "the end of the daemon's own work", 10)
    assert (names(host), custom_volumes(host)) == ([], [])


@pytest.mark.parametrize(
    ("wrong", "wishes", "code"),
    [
        ("image", {"image": "no-such-image"}, "image_not_found"),
        ("profile", {"image": "tiny", "profiles": ["no-such-profile"]}, "profile_not_found"),
        ("name", {"image": "tiny"}, "instance_exists"),
        ("check", {"image": "tiny"}, "check_failed"),
    ],
)
def test_the_same_words(managed: Managed, wrong: str, wishes: dict[str, Any], code: str) -> None:
    server, host = managed.server, managed.host
    checks = [{"name": "never", "command": ["false"], "timeout": 1}] if wrong == "check" else []
    server.import_egg(egg("plain", "#cloud-config\n{}\n", checks=checks))
    if wrong == "name":
        host.cli("init", "tiny", "taken")
    accepted = deploy(server, "plain", "taken", on_failure="cleanup", **wishes)
    operation = server.wait(accepted["operation_id"])
    if wrong == "name":
        host.cli("delete", "taken")
    assert operation["status"] == "failed"
    error = operation["error"]
    assert error["code"] == code
    assert error == _said.setdefault((host.hypervisor.family, wrong), error)


def _succeeded(server: Server, accepted: dict[str, Any]) -> None:
    operation = server.wait(accepted["operation_id"])
    assert operation["status"] == "succeeded", operation["error"]
