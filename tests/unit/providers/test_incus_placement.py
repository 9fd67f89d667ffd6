"""What the daemons say of their members, in our words; and that a silent one keeps nobody waiting."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from iceshelves.core.errors import Conflict, Failed, IceShelvesError, NotFound, Temporary, Unsupported
from iceshelves.providers.base import Capacity, ServerInfo
from iceshelves.providers.incus import placement
from iceshelves.providers.incus.client import Call
from iceshelves.providers.incus.placement import IncusPlacement

pytestmark = pytest.mark.anyio

GIB = 1024**3


def member(name: str, status: str = "Online", **more: Any) -> dict[str, Any]:
    return {"server_name": name, "status": status, "message": "", "roles": ["database"], "config": {}, **more}


class FakeServer:
    def __init__(self, clustered: bool = True) -> None:
        self.clustered = clustered

    async def info(self) -> ServerInfo:
        return ServerInfo("incus", "6.0", "1.0", "lone", self.clustered, frozenset(), frozenset())

    async def probe(self) -> ServerInfo:
        return await self.info()


class FakeClient:
    """A daemon that knows ``members``; what is in ``answers`` is told at ``path?target``."""

    where = "here"

    def __init__(self, *members: dict[str, Any]) -> None:
        self.members = list(members)
        self.answers: dict[str, Any] = {}
        self.instances: list[dict[str, Any]] = []

    async def get_objects(self, where: str, **query: str) -> list[dict[str, Any]]:
        if where == "/1.0/instances":
            assert query == {"all-projects": "true"}
            return self.instances
        return self.members if where == "/1.0/cluster/members" else [{"name": "default"}]

    async def get_object(self, where: str, target: str = "") -> dict[str, Any]:
        answer = self.answers.get(f"{where}?{target}", self.answers.get(where))
        if answer == "silence":
            await asyncio.Event().wait()
        if isinstance(answer, IceShelvesError):
            raise answer
        assert isinstance(answer, dict)
        return answer


class FakeOperations:
    def __init__(self, client: FakeClient, after: str = "", error: IceShelvesError | None = None) -> None:
        self.calls: list[tuple[str, str, Any]] = []
        self._client, self._after, self._error = client, after, error

    async def run(self, call: Call, _progress: Any) -> None:
        self.calls.append((call.method, call.path, call.body))
        if self._after:
            self._client.members[0]["status"] = self._after
        if self._error is not None:
            raise self._error


def placed(client: FakeClient, operations: Any = None, clustered: bool = True) -> IncusPlacement:
    server: Any = FakeServer(clustered)
    return IncusPlacement(client, operations, server)  # type: ignore[arg-type]


def with_resources(*members: dict[str, Any]) -> FakeClient:
    client = FakeClient(*members)
    client.answers["/1.0/resources"] = {"cpu": {"total": 4}, "memory": {"total": 8 * GIB, "used": GIB}}
    client.answers["/1.0/storage-pools/default/resources"] = {"space": {"total": 100, "used": 40}}
    return client


@pytest.mark.parametrize(
    ("status", "online", "evacuated"),
    [
        ("Online", True, False),
        ("Evacuated", True, True),
        ("Offline", False, False),
        ("Blocked", False, False),
    ],
)
async def test_states_in_our_words(status: str, online: bool, evacuated: bool) -> None:
    found, _ = await placed(FakeClient(member("m1", status, message="why"), member("m2"))).members()
    assert (found.online, found.evacuated, found.status, found.message) == (online, evacuated, status, "why")
    assert found.roles == ("database",)


async def test_one_that_answers_is_not_offline_whatever_the_others_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(placement, "ASK_DEADLINE", 0.1)
    lost = {"status": "Offline", "message": "No heartbeat for 18.093037336s (2026-11-20 13:55:02 +0000 UTC)"}
    long_lost = {**lost, "message": "No heartbeat for 1m2.5s (2026-11-20 13:55:02 +0000 UTC)"}
    client = FakeClient(member("m1"), member("m2"), member("m3", "Evacuated"), member("m4"), member("m5"))
    tested = placed(client)
    await tested.members()
    for one, state in zip(client.members, (lost, lost, lost, lost, long_lost), strict=True):
        one.update(state)
    client.answers = {"/1.0?m1": {}, "/1.0?m2": Temporary("gone"), "/1.0?m3": {}, "/1.0?m4": "silence"}
    found = await tested.members()
    assert [member.online for member in found] == [True, False, True, False, False]
    assert [member.evacuated for member in found] == [False, False, True, False, False]


async def test_that_all_are_offline_cannot_be_when_one_answers() -> None:
    with pytest.raises(Temporary) as caught:
        await placed(FakeClient(member("m1", "Offline"), member("m2", "Offline"))).members()
    assert caught.value.code == "cluster_unsettled"


@pytest.mark.parametrize(("scheduler", "automatic"), [("all", True), ("manual", False), ("group", False)])
async def test_what_is_placed_by_name_only(scheduler: str, automatic: bool) -> None:
    (found,) = await placed(FakeClient(member("m1", config={"scheduler.instance": scheduler}))).members()
    assert found.automatic is automatic


async def test_a_survey_tells_what_each_has() -> None:
    client = with_resources(member("m1"), member("m2", "Offline"))
    client.instances = [{"location": "m1"}, {"location": "m2"}, {"location": "m1"}]
    first, second = await placed(client).survey()
    assert first.capacity == Capacity(4, 8 * GIB, GIB, 100, 40, 2)
    assert second.capacity is None


async def test_a_single_server_has_capacity_too() -> None:
    client = with_resources()
    client.instances = [{"location": "none"}]
    (found,) = await placed(client, clustered=False).survey()
    assert (found.name, found.online) == ("lone", True)
    assert found.capacity == Capacity(4, 8 * GIB, GIB, 100, 40, 1)


@pytest.mark.parametrize("trouble", ["silence", Failed("no"), Temporary("away"), {"cpu": 3}])
async def test_a_member_that_does_not_tell_keeps_nobody_waiting(
    trouble: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "SURVEY_DEADLINE", 0.2)
    client = with_resources(member("m1"), member("m2"), member("m3"))
    client.answers["/1.0/resources?m2"] = client.answers["/1.0/resources?m3"] = trouble
    began = time.monotonic()
    first, *others = await placed(client).survey()
    assert time.monotonic() - began < 0.35
    assert first.capacity is not None
    assert [other.capacity for other in others] == [None, None]


@pytest.mark.parametrize(
    ("action", "before", "after"), [("evacuate", "Online", "Evacuated"), ("restore", "Evacuated", "Online")]
)
async def test_a_change_is_asked_for_once(action: str, before: str, after: str) -> None:
    client = FakeClient(member("m1", before))
    operations = FakeOperations(client, after)
    change = getattr(placed(client, operations), action)
    await change("m1")
    await change("m1")
    assert operations.calls == [
        ("POST", "/1.0/cluster/members/m1/state", {"action": action, "mode": ""}),
    ]


async def test_a_change_that_somebody_else_made_meanwhile_is_well() -> None:
    client = FakeClient(member("m1"))
    await placed(client, FakeOperations(client, "Evacuated", Failed("already evacuated"))).evacuate("m1")
    with pytest.raises(Failed, match="no room"):
        await placed(client, FakeOperations(client, "Evacuated", Failed("no room"))).restore("m1")


@pytest.mark.parametrize(
    ("clustered", "name", "kind", "code"),
    [
        (True, "m9", NotFound, "member_not_found"),
        (True, "m2", Conflict, "member_offline"),
        (False, "lone", Unsupported, "not_a_cluster"),
    ],
)
async def test_who_cannot_be_evacuated(
    clustered: bool, name: str, kind: type[IceShelvesError], code: str
) -> None:
    client = FakeClient(member("m1"), member("m2", "Offline", message="no heartbeat for 20s"))
    operations = FakeOperations(client)
    with pytest.raises(kind) as caught:
        await placed(client, operations, clustered).evacuate(name)
    assert caught.value.code == code
    assert operations.calls == []
    if clustered:
        assert "m1 (online), m2 (offline)" in str(caught.value.hint)
