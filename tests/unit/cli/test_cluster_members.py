from __future__ import annotations

from typing import Any

import pytest

MEMBERS = "/api/clusters/lab/members"
CAPACITY = {
    "cpus": 8, "memory": 16 << 30, "memory_used": 2 << 30, "storage": 100 << 30, "storage_used": 25 << 30,
    "instances": 7,
}  # fmt: skip


def member(name: str, status: str = "Online", **more: Any) -> dict[str, Any]:
    return {
        "name": name, "online": status != "Offline", "evacuated": status == "Evacuated", "automatic": True,
        "status": status, "message": "", "roles": ["database"], "capacity": CAPACITY, **more,
    }  # fmt: skip


@pytest.fixture
def lab(server: Any, listed: Any) -> Any:
    away = member("m2", "Offline", message="no heartbeat for 20s", capacity=None)
    server.on("GET", MEMBERS, listed("members", member("m1"), away))
    for action, status in (("evacuate", "Evacuated"), ("restore", "Online")):
        server.on("POST", f"{MEMBERS}/m1/{action}", {"success": True, **member("m1", status)})
    return server


def test_members_show_their_state_and_room(run: Any, lab: Any) -> None:
    _, first, second = run("cluster", "members", "lab").out.splitlines()
    assert first.split()[:4] == ["m1", "Online", "7", "8"]
    assert "2.0 GiB of 16.0 GiB  25.0 GiB of 100.0 GiB" in first
    assert second.split()[:2] == ["m2", "Offline"]
    assert second.endswith("no heartbeat for 20s")
    names = [entry["name"] for entry in run("cluster", "members", "lab", "--json", "name").json]
    assert names == ["m1", "m2"]


def test_evacuate_says_how_to_take_it_back(run: Any, lab: Any) -> None:
    done = run("cluster", "evacuate", "lab", "m1", "--yes")
    assert (done.code, done.err) == (0, "")
    assert "iceshelves cluster restore lab m1" in done.out
    assert run("cluster", "restore", "lab", "m1").out == "m1 is in use again.\n"


def test_evacuate_asks_first(run: Any, lab: Any) -> None:
    done = run("cluster", "evacuate", "lab", "m1")
    assert done.code != 0
    assert "--yes" in done.err
    assert lab.to("POST", f"{MEMBERS}/m1/evacuate") == []


def test_a_refusal_is_told_with_its_hint(run: Any, lab: Any, reply: Any) -> None:
    problem = {
        "error": "The member 'm2' is offline.",
        "error_code": "member_offline",
        "hint": "Bring it back.",
    }
    lab.on("POST", f"{MEMBERS}/m2/evacuate", reply(409, problem))
    done = run("cluster", "evacuate", "lab", "m2", "--yes")
    assert done.code == 1
    assert "Bring it back." in done.err
