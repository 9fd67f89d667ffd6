"""The main job on a real Incus: an egg becomes a configured instance, or says why not, without a trace."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from iceshelves.eggs import egg_from_files, pack
from testbed.hosts import Host, wait_until
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
    left = names(incus_host)
    for name in left:
        incus_host.incus("delete", "--force", name)
    volumes = custom_volumes(incus_host)
    for volume in volumes:
        incus_host.incus("storage", "volume", "delete", "default", volume)
    assert (left, volumes) == ([], [])


def names(host: Host) -> list[str]:
    return host.incus("list", "--format=csv", "--columns=n").stdout.split()


def custom_volumes(host: Host) -> list[str]:
    listed = host.incus("storage", "volume", "list", "default", "--format=json").stdout
    return [volume["name"] for volume in json.loads(listed) if volume["type"] == "custom"]


def running_operations(host: Host) -> list[str]:
    found = json.loads(host.incus("query", "/1.0/operations?recursion=1").stdout)
    return [operation["description"] for operation in found.get("running") or []]


def egg(name: str, user_data: str, **metadata: Any) -> bytes:
    fields = {"name": name, "version": "1.0.0", "description": "for a test", "category": "base",
              "egg_type": "lxd-container", **metadata}  # fmt: skip
    return bytes(
        pack(
            egg_from_files(
                {"metadata.json": json.dumps(fields).encode(), "cloud-init.yaml": user_data.encode()}
            )
        )
    )


def deploy(server: Server, egg_name: str, name: str, image: str, **more: Any) -> dict[str, Any]:
    return server.post("/deploy", egg=egg_name, cluster="real", instance_name=name, image=image, **more)


def delete(server: Server, deployment_id: int) -> None:
    answer = server.call("DELETE", f"/deployments/{deployment_id}")
    assert answer.status == 202, answer
    assert server.wait(answer.body["operation_id"])["status"] == "succeeded"


def test_the_page_is_served(server: Server, incus_host: Host, debian_image: str) -> None:
    accepted = deploy(server, "hello-web", "hello", debian_image, parameters={"greeting": "Grüß Gott"})
    operation = server.wait(accepted["operation_id"])
    assert operation["status"] == "succeeded", operation["error"]
    info = server.get(f"/deployments/{accepted['deployment_id']}")["instance_info"]
    page = incus_host.exec("python3", "-c", _FETCH, f"http://{info['ipv4'][0]}/").stdout
    assert "Grüß Gott" in page
    config = json.loads(incus_host.incus("query", "/1.0/instances/hello").stdout)["config"]
    assert config["user.iceshelves.egg"].startswith("hello-web@")

    # a new revision in place keeps the address, and can be taken back
    update = server.post(f"/deployments/{accepted['deployment_id']}/update", parameters={"greeting": "Moin"})
    assert server.wait(update["operation_id"])["status"] == "succeeded"
    assert "Moin" in incus_host.exec("python3", "-c", _FETCH, f"http://{info['ipv4'][0]}/").stdout
    back = server.post(f"/deployments/{accepted['deployment_id']}/rollback")
    assert server.wait(back["operation_id"])["status"] == "succeeded"
    assert "Grüß Gott" in incus_host.exec("python3", "-c", _FETCH, f"http://{info['ipv4'][0]}/").stdout
    delete(server, accepted["deployment_id"])


_FETCH = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())"


@pytest.mark.parametrize(
    ("name", "user_data", "words"),
    [
        ("bad-command", "#cloud-config\nruncmd:\n  - no-such-command --now\n", "no-such-command: not found"),
        (
            "bad-package",
            "#cloud-config\npackage_update: true\npackages: [no-such-package]\n",
            "Unable to locate package no-such-package",
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
    assert len(incus_host.incus("exec", "keeper-1", "--", "cat", "/data/boots").stdout.splitlines()) == 2
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
        ran = incus_host.incus("exec", "killed", "--", "cat", "/root/ran").stdout
        assert len(ran.splitlines()) == 1
        assert server.logs(accepted["deployment_id"]).count("begun") == 1
        followers = incus_host.incus("exec", "killed", "--", "ps").stdout
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
