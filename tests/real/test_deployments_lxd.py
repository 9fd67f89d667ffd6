"""The main job on a real LXD, which cannot rebuild an instance: an update replaces it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

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
from testbed.hosts import Host, wait_until
from testbed.server import Server, running_server


@pytest.fixture(autouse=True)
def nothing_left(lxd_host: Host) -> Iterator[None]:
    """Each test must leave LXD as it found it."""
    yield
    check_nothing_is_left(lxd_host)


@pytest.fixture
def server(lxd_host: Host, tmp_path: Path) -> Iterator[Server]:
    with running_server(tmp_path) as running:
        running.post("/clusters", name="real", provider="lxd", endpoint_url=str(lxd_host.socket))
        yield running


def test_the_page_is_served(server: Server, lxd_host: Host, lxd_debian_image: str) -> None:
    deploy_update_and_take_back_a_page(server, lxd_host, lxd_debian_image)


MOMENTS: dict[str, Callable[[list[str]], bool]] = {
    "both are there": lambda there: len(there) == 2,
    "the old one has gone": lambda there: "killed" not in there,
}


def _happens(condition: Callable[[], bool], server: Server, update: dict[str, Any]) -> bool:
    """Whether ``condition`` came true before the operation ended; looked at as often as can be."""
    while server.get(f"/operations/{update['operation_id']}")["status"] in ("pending", "running"):
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            if condition():
                return True
    return False


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_server_killed_while_it_replaces_goes_on(
    server: Server, lxd_host: Host, lxd_tiny_image: str, moment: str
) -> None:
    volumes = [{"name": "data", "path": "/data", "size": "64MiB"}]
    server.import_egg(egg("keeper", "#cloud-config\nruncmd:\n  - date >>/data/boots\n", volumes=volumes))
    accepted = deploy(server, "keeper", "killed", lxd_tiny_image)
    operation = server.wait(accepted["operation_id"])
    assert operation["status"] == "succeeded", operation["error"]
    where = f"/deployments/{accepted['deployment_id']}"
    before = server.get(where)["instance_info"]["ipv4"]

    # LXD's own folder, since the last of these moments lasts for milliseconds only, and may be missed
    folder = lxd_host.daemon_directory / "containers"
    boots = 1
    for _ in range(10):
        boots += 1
        update = server.post(f"{where}/update")
        if _happens(lambda: MOMENTS[moment]([entry.name for entry in folder.iterdir()]), server, update):
            break
    else:
        pytest.fail(f"never seen: {moment}")
    server.kill()
    server.start()
    operation = server.wait(update["operation_id"])
    assert operation["status"] == "succeeded", operation["error"]
    assert names(lxd_host) == ["killed"]
    assert custom_volumes(lxd_host) == ["killed-data"]
    assert server.get(where)["instance_info"]["ipv4"] == before
    assert len(lxd_host.cli("exec", "killed", "--", "cat", "/data/boots").stdout.splitlines()) == boots
    assert lxd_host.cli("exec", "killed", "--", "hostname").stdout == "killed\n"
    wait_until(lambda: running_operations(lxd_host) == [], "the end of LXD's own work", 10)
    delete(server, accepted["deployment_id"])
