"""The wire of the original's agents: their shapes to the letter, each deployment once, no claim forgotten."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from iceshelves.access.policy import Actor, Role
from iceshelves.core import clock
from iceshelves.core.errors import Unsupported
from iceshelves.deploy import claims
from iceshelves.deploy.messages import LEASE_SECONDS
from iceshelves.deploy.original_agent import IMAGE, addresses_of
from iceshelves.eggs import egg_from_files, pack
from iceshelves.store.models import Agent, Deployment, KnownInstance, LogLine, Operation, Step
from testbed.hosts import wait_until

ADMIN = Actor(1, 1, "admin", Role.ADMIN)
TAKEN = {"success": True, "message": "Status updated"}
INVALID = {"error": "Invalid agent key"}
DONE = {
    "name": "web-1",
    "status": "Running",
    "architecture": "x86_64",
    "created_at": "2026-01-31T12:00:00Z",
    "ipv4": [
        {"family": "inet6", "address": "fe80::1", "netmask": "64", "scope": "link"},
        {"family": "inet", "address": "10.1.2.3", "netmask": "24", "scope": "global"},
    ],
}


@dataclass
class Wire:
    """A server with an agent of the original at the cluster ``site``."""

    server: Any
    cluster_id: int
    key: str

    def send(self, path: str, key: str | None = None, **sent: Any) -> Any:
        headers = {"X-Agent-Key": key or self.key, "Content-Type": "application/json"}
        return self.server.client.post(f"/iceshelves/api/agent/{path}", headers=headers, **sent)

    def poll(self) -> list[dict[str, Any]]:
        answer = self.send(f"poll/{self.cluster_id}")
        assert answer.status_code == 200, answer.text
        assert list(answer.json()) == ["deployments"]
        offers: list[dict[str, Any]] = answer.json()["deployments"]
        return offers

    def tell(self, status: str, deployment: int = 1, **more: Any) -> None:
        body = {"status": status, "message": "", "instance_info": None, "error_message": None,
                "details": {"agent_hostname": "h1", "timestamp": "2026-01-31T12:00:00"}, **more}  # fmt: skip
        answer = self.send(f"status/{deployment}", json=body)
        assert (answer.status_code, answer.json()) == (200, TAKEN)

    def deploy(self, name: str = "web-1", **more: Any) -> dict[str, Any]:
        accepted: dict[str, Any] = self.server.deploy(name, **{"cluster": "site", "image": IMAGE, **more})
        return accepted

    def row(self, kind: type[Any], key: Any = 1) -> Any:
        with self.server.control.database.read() as session:
            return session.get_one(kind, key)

    def only(self, kind: type[Any] = Operation) -> Any:
        with self.server.control.database.read() as session:
            return session.execute(sa.select(kind)).scalar_one()

    def steps(self) -> dict[str, str]:
        with self.server.control.database.read() as session:
            return {step.name: step.status for step in session.execute(sa.select(Step)).scalars()}

    def log(self) -> str:
        with self.server.control.database.read() as session:
            return "\n".join(session.execute(sa.select(LogLine.message).order_by(LogLine.id)).scalars())

    def lease_passes(self) -> None:
        with self.server.control.database.write() as session:
            session.execute(sa.update(Operation).values(lease_until=clock.now()))


@pytest.fixture
def wire(make_server: Callable[[], Any]) -> Wire:
    server = make_server()
    body = {"name": "site", "provider": "fake", "connection_method": "agent-poll"}
    cluster = server.post("/api/clusters", json=body).json()["cluster_id"]
    made = server.post("/api/clusters/site/enroll-original")
    assert made.status_code == 201, made.text
    return Wire(server, cluster, made.json()["agent_key"])


# ---- shapes


def test_the_key_is_as_the_originals_are_and_kept_as_a_hash(wire: Wire) -> None:
    assert len(wire.key) == 43
    assert set(wire.key) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
    assert wire.key not in str(vars(wire.row(Agent)))
    again = wire.server.post("/api/clusters/site/enroll-original").json()
    assert wire.send(f"poll/{wire.cluster_id}").status_code == 401
    assert wire.send(f"poll/{wire.cluster_id}", again["agent_key"]).status_code == 200
    assert again["poll_interval"] == 60


def test_a_deployment_as_the_original_takes_it(wire: Wire) -> None:
    assert wire.poll() == []
    accepted = wire.deploy(config_overrides={"limits.cpu": "2"}, parameters={"greeting": "Moin"})
    [offer] = wire.poll()
    assert set(offer) == {
        "deployment_id", "egg_name", "instance_name", "deployment_type", "cloud_init", "lxd_profile",
        "config_overrides", "target_member",
    }  # fmt: skip
    assert (offer["deployment_id"], offer["egg_name"], offer["instance_name"], offer["deployment_type"]) == (
        accepted["deployment_id"], "hello-web", "web-1", "lxd",
    )  # fmt: skip
    config = offer["config_overrides"]
    assert offer["cloud_init"].startswith("#cloud-config")
    assert "Moin" in offer["cloud_init"]
    assert config["cloud-init.user-data"] == offer["cloud_init"]
    assert config["limits.cpu"] == "2"
    assert config["user.iceshelves.operation"] == accepted["operation_id"]
    assert config["user.iceshelves.deployment"] == wire.only(Deployment).uid
    assert all(isinstance(value, str) for value in config.values())


def test_the_key_may_come_as_a_bearer_token(wire: Wire) -> None:
    headers = {"Authorization": f"Bearer {wire.key}"}
    path = f"/iceshelves/api/agent/poll/{wire.cluster_id}"
    assert wire.server.client.post(path, headers=headers).json() == {"deployments": []}


def test_every_wrong_key_is_answered_alike(wire: Wire) -> None:
    other = {"name": "other", "provider": "fake", "connection_method": "agent-poll"}
    direct = {"name": "direct", "provider": "fake", "endpoint_url": "fake://unit-direct"}
    ids = [wire.server.post("/api/clusters", json=body).json()["cluster_id"] for body in (other, direct)]
    wire.server.post("/api/clusters/other/enroll-original")
    refused = [
        *(wire.send(f"poll/{cluster}") for cluster in (*ids, 999, 0, "site", "9" * 30)),
        wire.send(f"poll/{wire.cluster_id}", "x" * 43),
        wire.send("status/1", "x" * 43, json={"status": "completed"}),
        wire.server.client.post(f"/iceshelves/api/agent/poll/{wire.cluster_id}"),
    ]
    wire.server.post("/api/clusters/site/agent/revoke")
    refused.append(wire.send(f"poll/{wire.cluster_id}"))
    assert [(answer.status_code, answer.json()) for answer in refused] == [(401, INVALID)] * len(refused)
    assert wire.server.post("/api/clusters/direct/enroll-original").status_code == 400


def test_reports_that_cannot_be_taken(wire: Wire) -> None:
    wire.server.post("/api/clusters", json={"name": "lab", "provider": "fake", "endpoint_url": "fake://u-l"})
    elsewhere = wire.server.deploy("else")["deployment_id"]
    for deployment in (999, elsewhere, "abc", "-1"):
        answer = wire.send(f"status/{deployment}", json={"status": "completed"})
        assert (answer.status_code, answer.json()) == (404, {"error": "Deployment not found"})
    for content in (b"{", b"", b"[]", b'{"message": "x"}', b'{"status": 5}'):
        answer = wire.send("status/1", content=content)
        assert answer.status_code == 400, content
        assert list(answer.json()) == ["error"]
        assert answer.json()["error"]
    with wire.server.control.database.read() as session:
        assert session.get_one(Deployment, elsewhere).status == "pending"


# ---- a deployment, from the offer to the end


def test_completed(wire: Wire) -> None:
    wire.deploy()
    wire.poll()
    assert wire.only().status == "pending"
    wire.tell("in_progress", message="Starting deployment")
    assert (wire.only().status, wire.only(Deployment).status) == ("running", "in_progress")
    assert wire.steps()["create"] == "running"
    wire.tell("completed", message="Deployment completed", instance_info=DONE)
    deployment = wire.only(Deployment)
    assert (wire.only().status, deployment.status, deployment.error) == ("succeeded", "completed", None)
    assert deployment.instance_info["ipv4"] == ["10.1.2.3"]
    assert deployment.instance_info["ipv6"] == ["fe80::1"]
    assert deployment.instance_info["status"] == "running"
    steps = wire.steps()
    assert (steps["create"], steps["ready"], steps["cloud-init"]) == ("done", "done", "skipped")
    assert "does not wait for cloud-init" in wire.log()
    assert "Starting deployment" in wire.log()
    assert wire.row(Agent).host == "h1"
    assert wire.poll() == []


def test_failed_and_then_retried(wire: Wire) -> None:
    wire.deploy()
    wire.poll()
    wire.tell("in_progress")
    wire.tell("failed", error_message="Failed creating instance: no space\nleft")
    error = wire.only().error
    assert (error["code"], error["message"]) == (
        "original_agent_failed", "The original's agent failed: Failed creating instance: no space left",
    )  # fmt: skip
    assert wire.only(Deployment).living
    wire.tell("completed", instance_info=DONE)  # late
    assert wire.only(Deployment).status == "failed"
    retried = wire.server.post("/api/deployments/1/retry").json()["operation_id"]
    wire.tell("completed", instance_info=DONE)  # later still: not of what has not been handed out yet
    assert wire.row(Operation, retried).status == "pending"
    assert [offer["deployment_id"] for offer in wire.poll()] == [1]
    wire.tell("completed", instance_info=DONE)
    assert wire.row(Operation, retried).status == "succeeded"


def test_failed_without_a_word(wire: Wire) -> None:
    wire.deploy()
    wire.poll()
    wire.tell("failed")
    assert wire.only().error["message"].endswith("it does not say why.")


def test_a_repeated_report_changes_nothing(wire: Wire) -> None:
    wire.deploy()
    wire.poll()
    wire.tell("completed", instance_info=DONE)
    version, log = wire.only().version, wire.log()
    wire.tell("completed", instance_info={**DONE, "ipv4": []})
    wire.tell("failed", error_message="already exists")
    assert (wire.only().version, wire.only().status, wire.log()) == (version, "succeeded", log)
    assert wire.only(Deployment).instance_info["ipv4"] == ["10.1.2.3"]


def test_secrets_in_what_it_says_are_taken_out(wire: Wire) -> None:
    metadata = {
        "name": "vault", "version": "1.0.0", "description": "x", "category": "base", "rendering": "jinja",
        "egg_type": "lxd-container", "base_image": IMAGE,
        "parameters": {"password": {"type": "string", "secret": True, "required": True}},
    }  # fmt: skip
    files = {
        "metadata.json": json.dumps(metadata).encode(),
        "cloud-init.yaml": b"#cloud-config\nruncmd: ['echo {{ password }}']\n",
    }
    made = wire.server.post("/api/eggs/import", content=bytes(pack(egg_from_files(files))))
    assert made.status_code == 201, made.text
    wire.deploy(egg="vault", parameters={"password": "hunter-two"})
    [offer] = wire.poll()
    assert "hunter-two" in offer["cloud_init"]
    wire.tell("queued", message="with\nhunter-two\x00")  # a state of its own: only the log has it
    wire.tell("failed", error_message="runcmd: echo hunter-two")
    assert "queued: with ••••••\ufffd" in wire.log()
    assert "hunter-two" not in f"{wire.log()} {wire.only().error} {wire.only(Deployment).error}"


# ---- claims


def test_each_is_handed_out_once_until_its_lease_has_passed_without_a_word(wire: Wire) -> None:
    wire.deploy()
    assert len(wire.poll()) == 1
    assert wire.poll() == []
    left = (wire.only().lease_until - clock.now()).total_seconds()
    assert 590 < left <= 600
    wire.lease_passes()
    wire.tell("in_progress")  # a word renews it
    assert wire.poll() == []
    wire.lease_passes()
    assert [offer["instance_name"] for offer in wire.poll()] == ["web-1"]
    assert "again: nothing was heard of it" in wire.log()
    wire.lease_passes()
    assert len(wire.poll()) == 1
    wire.lease_passes()
    assert wire.poll() == [], "three times are enough"


def test_a_long_interval_makes_a_long_lease(wire: Wire) -> None:
    with wire.server.control.database.write() as session:
        session.execute(sa.update(Agent).values(poll_interval=900))
    wire.deploy()
    wire.poll()
    assert 1790 < (wire.only().lease_until - clock.now()).total_seconds() <= 1800


def test_a_word_about_one_renews_all_that_wait_in_the_agents_list(wire: Wire) -> None:
    first, second = wire.deploy("one"), wire.deploy("two")
    assert [offer["instance_name"] for offer in wire.poll()] == ["one", "two"]
    wire.lease_passes()
    wire.tell("completed", first["deployment_id"], instance_info=DONE)
    assert wire.poll() == []
    assert wire.row(Operation, second["operation_id"]).deadline > clock.now() + timedelta(seconds=600)


def test_what_one_protocol_holds_the_other_does_not_get(wire: Wire) -> None:
    """Our own agent with the same key: it waits for the lease, then goes on under a new fence."""
    operation = wire.deploy()["operation_id"]
    wire.poll()
    control = wire.server.control
    with control.database.write() as session:
        session.execute(sa.update(Agent).values(last_seen=None))
        assert claims.claim(session, control.cipher, wire.cluster_id, {}, claims.Room(5, LEASE_SECONDS)) == []
    wire.lease_passes()
    with control.database.write() as session:
        [claim] = claims.claim(session, control.cipher, wire.cluster_id, {}, claims.Room(5, LEASE_SECONDS))
    assert (claim.operation, claim.fence) == (operation, 2)
    wire.tell("completed", instance_info=DONE)  # of a claim that is not its own any more
    assert wire.only().status == "running"
    wire.lease_passes()
    assert wire.poll() == [], "what our own agent has begun it alone can go on with"


def test_while_our_own_agent_uses_the_key_the_originals_gets_nothing(wire: Wire) -> None:
    wire.deploy()
    with wire.server.control.database.write() as session:
        session.execute(sa.update(Agent).values(version="1.0", last_seen=clock.now()))
    assert wire.poll() == []
    assert wire.row(Agent).version == "1.0"
    with wire.server.control.database.write() as session:
        session.execute(sa.update(Agent).values(last_seen=clock.later(-LEASE_SECONDS)))
    assert len(wire.poll()) == 1
    assert wire.row(Agent).version == "original"


def test_an_instance_that_is_there_already(wire: Wire) -> None:
    wire.deploy()
    wire.poll()
    wire.tell("failed", error_message='Instance "web-1" already exists')
    assert wire.only().error["code"] == "instance_exists"


def test_a_lost_end_and_a_repeated_create_are_told_honestly(wire: Wire) -> None:
    operation = wire.deploy()["operation_id"]
    wire.poll()
    wire.tell("in_progress")
    wire.lease_passes()
    wire.poll()
    wire.tell("in_progress")
    wire.tell("failed", error_message='Instance "web-1" already exists')
    error = wire.only().error
    assert error["code"] == "instance_uncertain"
    assert operation in error["hint"]


def test_our_mark_on_the_instance_makes_a_repeated_create_a_success(wire: Wire) -> None:
    wire.deploy()
    wire.poll()
    wire.lease_passes()
    wire.poll()
    with wire.server.control.database.write() as session:
        session.add(
            KnownInstance(
                cluster_id=wire.cluster_id, name="web-1", tenant_id=1, kind="container", power="running",
                ownership="ours", deployment_uid=wire.only(Deployment).uid,
            )
        )  # fmt: skip
    wire.tell("failed", error_message='Instance "web-1" already exists')
    assert (wire.only().status, wire.only(Deployment).status) == ("succeeded", "completed")


# ---- what it cannot do


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"image": "debian/13"}, "use the image debian/13"),
        ({"kind": "virtual-machine"}, "make a virtual machine"),
        ({"profiles": ["default", "gpu"]}, "use other profiles"),
        ({"target_member": "m2"}, "on the member m2"),
    ],
)
def test_what_it_cannot_do_fails_at_once(wire: Wire, wishes: dict[str, Any], words: str) -> None:
    operation = wire.deploy(**wishes)["operation_id"]
    _ended_soon(wire, operation)
    error = wire.row(Operation, operation).error
    assert error["code"] == "original_agent_unable"
    assert words in error["message"]
    assert "iceshelves agent" in error["hint"]
    assert not wire.only(Deployment).living
    assert wire.poll() == []


def test_it_can_neither_update_nor_delete(wire: Wire) -> None:
    wire.deploy()
    wire.poll()
    wire.tell("completed", instance_info=DONE)
    update = wire.server.post("/api/deployments/1/update", json={"parameters": {"greeting": "x"}}).json()
    _ended_soon(wire, update["operation_id"])
    assert "change an instance" in wire.row(Operation, update["operation_id"]).error["message"]
    delete = wire.server.call("DELETE", "/api/deployments/1").json()["operation_id"]
    _ended_soon(wire, delete)
    assert "delete an instance" in wire.row(Operation, delete).error["message"]
    assert wire.row(Deployment).living
    assert wire.poll() == []


def test_of_what_was_never_made_the_record_is_deleted(wire: Wire) -> None:
    operation = wire.deploy(image="debian/13")["operation_id"]
    _ended_soon(wire, operation)
    delete = wire.server.call("DELETE", "/api/deployments/1").json()["operation_id"]
    _ended_soon(wire, delete)
    assert wire.row(Deployment).status == "deleted"


def test_it_can_be_asked_for_nothing_else(wire: Wire) -> None:
    agents = wire.server.control.agents
    with pytest.raises(Unsupported, match="nothing can be asked of it"):
        agents._check_live(wire.cluster_id)
    with pytest.raises(Unsupported, match="new key"):
        agents.rotate(ADMIN, wire.cluster_id)


def test_a_cancelled_one_is_not_taken_for_a_success(wire: Wire) -> None:
    operation = wire.deploy()["operation_id"]
    wire.poll()
    assert wire.server.post(f"/api/operations/{operation}/cancel").status_code == 202
    wire.tell("in_progress")
    wire.tell("completed", instance_info=DONE)
    ended, deployment = wire.only(), wire.only(Deployment)
    assert (ended.status, ended.error["code"]) == ("cancelled", "cancelled_too_late")
    assert (deployment.status, deployment.living) == ("cancelled", True)
    assert deployment.instance_info["ipv4"] == ["10.1.2.3"]


def _ended_soon(wire: Wire, operation: str) -> None:
    """It ends without a poll."""
    wait_until(lambda: wire.row(Operation, operation).finished_at is not None, "its end", 5)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (DONE["ipv4"], ["10.1.2.3", "fe80::1"]),
        (["192.0.2.7", "2001:db8::1"], ["192.0.2.7", "2001:db8::1"]),
        (["127.0.0.1", "nonsense", None, 7.5, {"address": 5}, {}, "fe80::9", "192.0.2.7"],
         ["192.0.2.7", "fe80::9"]),
        ([{"address": "10.0.0.1", "scope": "host"}, {"address": "10.0.0.2", "scope": "global"}] * 2,
         ["10.0.0.2", "10.0.0.1"]),
        ("10.0.0.1", []),
        (None, []),
    ],
)  # fmt: skip
def test_addresses_of_widest_reach_come_first(given: object, found: list[str]) -> None:
    assert addresses_of(given) == found
