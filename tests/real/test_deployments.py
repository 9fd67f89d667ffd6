"""The main job on a real Incus: an egg becomes a configured instance, or says why not, without a trace."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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
from testbed import images
from testbed.hosts import Host, wait_until
from testbed.image_server import SlowImageServer, serving_in_a_thread
from testbed.server import Server, running_server


@pytest.fixture(scope="module")
def server(incus_host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("server")) as running:
        running.post("/clusters", name="real", provider="incus", endpoint_url=str(incus_host.socket))
        yield running


@pytest.fixture(autouse=True)
def nothing_left(incus_host: Host) -> Iterator[None]:
    """Each test must leave Incus as it found it."""
    yield
    check_nothing_is_left(incus_host)


def test_the_page_is_served(server: Server, incus_host: Host, debian_image: str) -> None:
    deploy_update_and_take_back_a_page(server, incus_host, debian_image)


@pytest.mark.parametrize(
    ("name", "user_data", "words"),
    [
        ("bad-command", "#cloud-config\nruncmd:\n  - no-such-command --now\n", "no-such-command: not found"),
        (
            "bad-package",
            "#cloud-config\npackage_update: true\npackages: [no-such-package]\n",
            "no-such-package",  # apt's words with cloud-init 22.4, its own with 25.1
        ),
    ],
)
def test_the_guests_own_message_is_shown(
    server: Server, incus_host: Host, debian_image: str, name: str, user_data: str, words: str
) -> None:
    server.import_egg(egg(name, user_data))
    accepted = deploy(server, name, name, debian_image, on_failure="keep")
    operation = server.wait(accepted["operation_id"], 180)
    assert operation["status"] == "failed"
    assert operation["error"]["code"] == "cloud_init_failed"
    assert any(words in line for line in operation["error"]["details"]["guest"]), operation["error"]
    assert any(words in line for line in server.logs(accepted["deployment_id"]))
    assert names(incus_host) == [name]  # kept for a look
    delete(server, accepted["deployment_id"])


def test_an_image_without_cloud_init_is_refused(server: Server, incus_host: Host, plain_image: str) -> None:
    accepted = deploy(server, "debian-base", "plain-1", plain_image, on_failure="cleanup")
    operation = server.wait(accepted["operation_id"])
    assert operation["error"]["code"] == "image_without_cloud_init", operation
    assert operation["error"]["hint"]


def test_volumes_outlive_a_new_revision(server: Server, incus_host: Host, tiny_image: str) -> None:
    volumes = [{"name": "data", "path": "/data", "size": "64MiB"}]
    server.import_egg(egg("keeper", "#cloud-config\nruncmd:\n  - date >>/data/boots\n", volumes=volumes))
    accepted = deploy(server, "keeper", "keeper-1", tiny_image)
    assert server.wait(accepted["operation_id"])["status"] == "succeeded"
    update = server.post(f"/deployments/{accepted['deployment_id']}/update")
    assert server.wait(update["operation_id"])["status"] == "succeeded"
    assert len(incus_host.cli("exec", "keeper-1", "--", "cat", "/data/boots").stdout.splitlines()) == 2
    delete(server, accepted["deployment_id"])


SLOW = "#cloud-config\nruncmd:\n  - echo begun\n  - sleep 2\n  - date >>/root/ran\n"
STEPS = ("validate", "image", "resources", "create", "start", "guest", "cloud-init", "checks", "ready")


@pytest.mark.parametrize("step", STEPS)
def test_killed_server_goes_on(incus_host: Host, tiny_image: str, tmp_path: Path, step: str) -> None:
    """SIGKILL in each step, or right behind it where the step is too quick to be met."""
    checks = [{"name": "slow", "command": ["sleep", "0.3"], "timeout": 20}]
    volumes = [{"name": "data", "path": "/data", "size": "64MiB"}]
    with running_server(tmp_path) as server:
        server.post("/clusters", name="real", provider="incus", endpoint_url=str(incus_host.socket))
        server.import_egg(egg("slow", SLOW, checks=checks, volumes=volumes))
        accepted = deploy(server, "slow", "killed", tiny_image)
        _kill_in(server, accepted["operation_id"], step)
        server.start()
        operation = server.wait(accepted["operation_id"])
        assert operation["status"] == "succeeded", operation["error"]
        assert names(incus_host) == ["killed"]
        assert custom_volumes(incus_host) == ["killed-data"]
        ran = incus_host.cli("exec", "killed", "--", "cat", "/root/ran").stdout
        assert len(ran.splitlines()) == 1
        assert server.logs(accepted["deployment_id"]).count("begun") == 1
        followers = incus_host.cli("exec", "killed", "--", "ps").stdout
        assert "tail" not in followers
        wait_until(lambda: running_operations(incus_host) == [], "the end of Incus' own work", 10)
        delete(server, accepted["deployment_id"])


def _kill_in(server: Server, operation_id: str, step: str) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = server.get(f"/operations/{operation_id}")
        if {entry["name"]: entry["status"] for entry in found["steps"]}[step] != "pending":
            break
    server.kill()


def test_cancel_while_the_image_is_fetched(incus_host: Host, tiny_image: str, tmp_path: Path) -> None:
    assert incus_host.cable is not None
    slow = SlowImageServer(images.tiny_files())
    with serving_in_a_thread(slow, incus_host.cable.gateway) as url, running_server(tmp_path) as server:
        server.post(
            "/clusters",
            name="real",
            provider="incus",
            endpoint_url=str(incus_host.socket),
            options={"image_servers": [{"name": "slow", "url": url}]},
        )
        before = incus_host.cli("image", "list", "--format=csv").stdout
        accepted = deploy(server, "debian-base", "fetching", "slow/1")
        server.wait_for_step(accepted["operation_id"], "image")
        wait_until(lambda: slow.downloads > 0, "the download")
        server.post(f"/deployments/{accepted['deployment_id']}/cancel")
        assert server.wait(accepted["operation_id"])["status"] == "cancelled"
        wait_until(lambda: running_operations(incus_host) == [], "the end of Incus' own work", 10)
        assert incus_host.cli("image", "list", "--format=csv").stdout == before


@pytest.mark.parametrize("name", ["debian-base", "debian-nginx", "debian-docker"])
def test_the_library_deploys(server: Server, incus_host: Host, debian_image: str, name: str) -> None:
    """The eggs that need nothing but the distribution's packages; each has checks of its own."""
    # the host's disk is memory, so what the guest writes there counts against its limit
    roomy = {"limits.memory": "4GiB"}
    accepted = deploy(server, name, name, debian_image, config_overrides=roomy)
    operation = server.wait(accepted["operation_id"], 300)
    assert operation["status"] == "succeeded", operation["error"]
    delete(server, accepted["deployment_id"])


@pytest.mark.parametrize("step", ["create", "start", "cloud-init", "checks"])
def test_cancel_leaves_nothing(server: Server, incus_host: Host, tiny_image: str, step: str) -> None:
    checks = [{"name": "slow", "command": ["sleep", "30"], "timeout": 60}]
    volumes = [{"name": "data", "path": "/data", "size": "64MiB"}]
    user_data = SLOW if step != "cloud-init" else SLOW.replace("sleep 2", "sleep 30")
    server.import_egg(egg(f"slow-{step}", user_data, checks=checks, volumes=volumes))
    accepted = deploy(server, f"slow-{step}", "cancelled", tiny_image)
    server.wait_for_step(accepted["operation_id"], step)
    server.post(f"/deployments/{accepted['deployment_id']}/cancel")
    operation = server.wait(accepted["operation_id"])
    assert operation["status"] == "cancelled", operation
    assert names(incus_host) == []
    assert custom_volumes(incus_host) == []
    wait_until(lambda: running_operations(incus_host) == [], "the end of Incus' own work")


def test_twenty_at_once_and_one_that_hangs(server: Server, incus_host: Host, tiny_image: str) -> None:
    server.import_egg(egg("quick", "#cloud-config\nruncmd:\n  - echo hi\n"))
    server.import_egg(egg("hanging", "#cloud-config\nruncmd:\n  - sleep 600\n"))
    stuck = deploy(server, "hanging", "stuck", tiny_image)
    with ThreadPoolExecutor(20) as pool:
        accepted = list(pool.map(lambda n: deploy(server, "quick", f"at-once-{n}", tiny_image), range(20)))
        ended = list(pool.map(lambda a: server.wait(a["operation_id"]), accepted))
    assert {operation["status"] for operation in ended} == {"succeeded"}
    assert server.get(f"/operations/{stuck['operation_id']}")["status"] == "running"
    assert len(names(incus_host)) == 21
    server.post(f"/deployments/{stuck['deployment_id']}/cancel")
    assert server.wait(stuck["operation_id"])["status"] == "cancelled"
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda a: delete(server, a["deployment_id"]), accepted))


def test_the_daemon_restarts_in_the_middle(server: Server, incus_host: Host, tiny_image: str) -> None:
    server.import_egg(egg("slow-restart", SLOW))
    accepted = deploy(server, "slow-restart", "restarted", tiny_image)
    server.wait_for_step(accepted["operation_id"], "cloud-init")
    incus_host.restart_daemon()
    operation = server.wait(accepted["operation_id"])
    assert operation["status"] == "succeeded", operation["error"]
    delete(server, accepted["deployment_id"])


def test_health_is_public_and_nothing_else(server: Server) -> None:
    with urllib.request.urlopen(f"http://{server.address}/iceshelves/healthz") as answer:
        assert json.load(answer)["status"] == "healthy"
    assert server.call("GET", "/deployments", token="isv_wrong").status == 401
