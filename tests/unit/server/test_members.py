"""Members over the wire."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from iceshelves.connections.values import Scenario
from iceshelves.providers.fake.world import forget_world, open_world

THREE = {
    "members": {"m1": {"roles": ["leader"]}, "m2": {}, "m3": {"online": False, "message": "no heartbeat"}}
}


@pytest.fixture
def lab(server: Any) -> Iterator[Any]:
    open_world(Scenario("unit-lab")).rewrite(THREE)
    yield server
    forget_world("unit-lab")


def test_members_are_listed_with_what_they_have(lab: Any) -> None:
    answer = lab.get("/api/clusters/lab/members", "viewer").json()
    assert answer["total"] == 3
    assert answer["members"][0] == {
        "name": "m1", "online": True, "evacuated": False, "automatic": True, "status": "Online",
        "message": "", "roles": ["leader"],
        "capacity": {
            "cpus": 8, "memory": 16 << 30, "memory_used": 2 << 30, "storage": None, "storage_used": None,
            "instances": 0,
        },
    }  # fmt: skip
    last = answer["members"][2]
    assert (last["online"], last["message"], last["capacity"]) == (False, "no heartbeat", None)
    second = lab.get("/api/clusters/lab/members?page=2&per_page=2").json()
    assert [member["name"] for member in second["members"]] == ["m3"]


def test_a_member_is_evacuated_and_restored(lab: Any) -> None:
    for action, status in (("evacuate", "Evacuated"), ("evacuate", "Evacuated"), ("restore", "Online")):
        answer = lab.post(f"/api/clusters/lab/members/m2/{action}")
        assert (answer.status_code, answer.json()["status"]) == (200, status)
    audited = [entry["action"] for entry in lab.get("/api/audit").json()["audit"]]
    assert audited[:3] == ["member.restore", "member.evacuate", "member.evacuate"]


@pytest.mark.parametrize(
    ("member", "status", "code"), [("m9", 404, "member_not_found"), ("m3", 409, "member_offline")]
)
def test_what_cannot_be_evacuated(lab: Any, member: str, status: int, code: str) -> None:
    answer = lab.post(f"/api/clusters/lab/members/{member}/evacuate")
    assert (answer.status_code, answer.json()["error_code"]) == (status, code)
    assert "m1 (online)" in answer.json()["hint"]


def test_an_operator_may_look_but_not_change(lab: Any) -> None:
    assert lab.get("/api/clusters/lab/members", "operator").status_code == 200
    assert lab.post("/api/clusters/lab/members/m1/evacuate", "operator").status_code == 403


def test_a_cluster_that_does_not_answer_is_not_available(lab: Any) -> None:
    open_world(Scenario("unit-lab")).rewrite({"faults": [{"action": "survey"}]})
    answer = lab.get("/api/clusters/lab/members")
    assert (answer.status_code, answer.json()["error_code"]) == (503, "hypervisor_unreachable")
