"""What tests of whole deployments share: eggs, requests, and looks at the hypervisor by its own client."""

from __future__ import annotations

import json
from typing import Any

from iceshelves.eggs import egg_from_files, pack
from testbed.hosts import Host
from testbed.server import Server


def names(host: Host) -> list[str]:
    return host.cli("list", "--format=csv", "--columns=n").stdout.split()


def custom_volumes(host: Host) -> list[str]:
    listed = host.cli("storage", "volume", "list", "default", "--format=json").stdout
    return [volume["name"] for volume in json.loads(listed) if volume["type"] == "custom"]


def running_operations(host: Host) -> list[str]:
    found = json.loads(host.cli("query", "/1.0/operations?recursion=1").stdout)
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


def check_nothing_is_left(host: Host) -> None:
    """Fail if a test left an instance or a volume, and take it away for the next one."""
    left = names(host)
    for name in left:
        host.cli("delete", "--force", name)
    volumes = custom_volumes(host)
    for volume in volumes:
        host.cli("storage", "volume", "delete", "default", volume)
    assert (left, volumes) == ([], [])


def deploy_update_and_take_back_a_page(server: Server, host: Host, image: str) -> None:
    """The main job: a page is served, a new revision in place keeps the address, and can be taken back."""
    accepted = deploy(server, "hello-web", "hello", image, parameters={"greeting": "Grüß Gott"})
    operation = server.wait(accepted["operation_id"])
    assert operation["status"] == "succeeded", operation["error"]
    info = server.get(f"/deployments/{accepted['deployment_id']}")["instance_info"]
    url = f"http://{info['ipv4'][0]}/"
    assert "Grüß Gott" in page(host, url)
    config = json.loads(host.cli("query", "/1.0/instances/hello").stdout)["config"]
    assert config["user.iceshelves.egg"].startswith("hello-web@")

    update = server.post(f"/deployments/{accepted['deployment_id']}/update", parameters={"greeting": "Moin"})
    operation = server.wait(update["operation_id"])
    assert operation["status"] == "succeeded", operation["error"]
    assert "Moin" in page(host, url)
    assert host.cli("exec", "hello", "--", "hostname").stdout == "hello\n"

    back = server.post(f"/deployments/{accepted['deployment_id']}/rollback")
    operation = server.wait(back["operation_id"])
    assert operation["status"] == "succeeded", operation["error"]
    assert "Grüß Gott" in page(host, url)
    assert names(host) == ["hello"]
    delete(server, accepted["deployment_id"])


def page(host: Host, url: str) -> str:
    """What ``url`` answers to somebody on ``host``."""
    return host.exec("python3", "-c", _FETCH, url).stdout


_FETCH = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())"
