"""Where a new instance goes: named, or where most room is; decided once, whoever dies."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from iceshelves.core.errors import Conflict
from iceshelves.deploy.placing import roomiest
from iceshelves.deploy.plans import Plan, Plans, memory_of
from iceshelves.deploy.requests import UpdateRequest
from iceshelves.operations import execution
from iceshelves.providers.base import Capacity, Member
from iceshelves.providers.fake.world import Call

from .conftest import ADMIN, Killed, Plane, Story, make_egg

Play = Callable[[Story], None]
GIB = 1024**3
THREE = {"m1": {}, "m2": {}, "m3": {}}
VOLUME = {"volumes": [{"name": "data", "path": "/data", "size": "1GiB"}]}


def member(name: str, free: float | None = 10, instances: int | None = 0, **more: Any) -> Member:
    """A member of 16 GiB, of which ``free`` are not used."""
    used = 0 if free is None else int((16 - free) * GIB)
    capacity = None if free is None else Capacity(8, 16 * GIB, used, instances=instances)
    return Member(name, **{"online": True, "status": "Online", "capacity": capacity, **more})


@pytest.mark.parametrize(
    ("members", "chosen"),
    [
        ([member("a", 4), member("b", 9), member("c", 6)], "b"),
        ([member("a", 9.4, 7), member("b", 9.0, 2), member("c", 8.0, 0)], "b"),  # as much room: the emptier
        ([member("a", 9, 3), member("b", 9.2, 3)], "b"),
        ([member("b", 9), member("a", 9)], "a"),
        ([member("a", 9, None), member("b", 9, 1)], "a"),
        ([member("a", 12, online=False), member("b", 1)], "b"),
        ([member("a", 12, evacuated=True), member("b", 1)], "b"),
        ([member("a", 12, automatic=False), member("b", 1)], "b"),
        ([member("a", None), member("b", 1)], "b"),
        ([member("b", None), member("a", None)], "a"),
    ],
)
def test_where_most_room_is(members: list[Member], chosen: str) -> None:
    assert roomiest(members, Plans()) == chosen


def test_what_is_planned_takes_room() -> None:
    plans = Plans()
    members = [member("a", 10), member("b", 8)]
    plans.put("op1", Plan("a", 4 * GIB, 1))
    assert roomiest(members, plans) == "b"
    plans.put("op1", Plan("a", GIB, 0))
    assert roomiest(members, plans) == "a"
    plans.put("op2", Plan("a", 3 * GIB, 1))
    plans.drop("op1")
    assert roomiest(members, plans) == "b"
    plans.drop("op2")
    plans.drop("op2")
    assert roomiest(members, plans) == "a"


def test_a_burst_is_spread() -> None:
    members, plans = [member("a", 10), member("b", 10), member("c", 10)], Plans()
    for number in range(9):
        plans.put(str(number), Plan(roomiest(members, plans), GIB // 4, 1))
    assert [len(plans.of(name)) for name in "abc"] == [3, 3, 3]


def test_nobody_takes_it() -> None:
    with pytest.raises(Conflict) as caught:
        roomiest([member("a", evacuated=True, status="Evacuated"), member("b", automatic=False)], Plans())
    assert caught.value.code == "no_member_available"
    assert "a (evacuated), b (online)" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("limit", "size"), [({"limits.memory": "512MiB"}, GIB // 2), ({}, GIB), ({"limits.memory": "50%"}, GIB)]
)
def test_memory_that_an_instance_is_given_room_for(limit: dict[str, str], size: int) -> None:
    assert memory_of(limit) == size


@pytest.mark.parametrize("wanted", [None, "auto"])
def test_a_burst_of_deployments_is_spread(play: Play, wanted: str | None) -> None:
    async def story(plane: Plane) -> None:
        plane.world.rewrite({"members": THREE, "delays": {"create": 0.05}})
        egg_id = plane.add_egg()
        accepted = [plane.deploy(f"web-{n}", egg_id=egg_id, target_member=wanted) for n in range(9)]
        for one in accepted:
            assert (await plane.ended(one)).status == "succeeded"
        placed = Counter(instance.member for instance in plane.world.state.instances.values())
        assert placed == {"m1": 3, "m2": 3, "m3": 3}
        assert plane.deployment().instance_info["member"] in THREE
        assert any(line.startswith("Member: m") for line in plane.log())

    play(story)


def test_a_named_member_is_taken_however_full(play: Play) -> None:
    async def story(plane: Plane) -> None:
        plane.world.rewrite({"members": {**THREE, "m3": {"memory_used": "15GiB", "automatic": False}}})
        assert (await plane.ended(plane.deploy(target_member="m3"))).status == "succeeded"
        assert plane.world.state.instances["web"].member == "m3"

    play(story)


@pytest.mark.parametrize(
    ("wanted", "code"), [("m9", "member_not_found"), ("m2", "member_offline"), ("m3", "member_evacuated")]
)
def test_a_member_that_cannot_take_it_is_told_with_the_others(play: Play, wanted: str, code: str) -> None:
    async def story(plane: Plane) -> None:
        plane.world.rewrite({"members": {**THREE, "m2": {"online": False}}})
        plane.world.state.evacuated["m3"] = {}
        operation = await plane.ended(plane.deploy(target_member=wanted))
        assert operation.error is not None
        assert operation.error["code"] == code
        assert "m1 (online), m2 (offline), m3 (evacuated)" in operation.error["hint"]
        assert plane.world.state.instances == {}
        assert not plane.deployment().living

    play(story)


@pytest.mark.parametrize("wanted", [None, "auto"])
def test_a_single_server_is_not_surveyed(play: Play, wanted: str | None) -> None:
    async def story(plane: Plane) -> None:
        assert (await plane.ended(plane.deploy(target_member=wanted))).status == "succeeded"
        assert plane.world.state.instances["web"].member is None
        assert "survey" not in [call.action for call in plane.world.calls]

    play(story)


@pytest.mark.parametrize("step", ["image", "resources", "create"])
def test_the_choice_outlives_a_kill(play: Play, step: str) -> None:
    async def story(plane: Plane) -> None:
        plane.world.rewrite({"members": {**THREE, "m2": {"memory_used": "1GiB"}}})

        def die(moment: str) -> None:
            if moment == f"before {step}":
                raise Killed

        plane.hook = die
        accepted = plane.deploy(egg=make_egg(**VOLUME))
        await plane.reached(accepted.operation_id, "validate", "done")
        await asyncio.gather(*plane.engine.tasks.values(), return_exceptions=True)
        plane.world.rewrite({"members": {**THREE, "m2": {"memory_used": "15GiB"}}})
        plane.hook = lambda _moment: None
        await plane.restart()
        assert (await plane.ended(accepted)).status == "succeeded"
        assert plane.world.state.instances["web"].member == "m2"
        assert [volume.member for volume in plane.world.state.volumes.values()] == ["m2"]

    play(story)


def test_what_was_cut_off_is_still_planned_after_a_restart(play: Play) -> None:
    async def story(plane: Plane) -> None:
        stuck = {"action": "create", "instance": "stuck", "kind": "hang"}
        plane.world.rewrite({"members": {"m1": {}, "m2": {}}, "faults": [stuck]})
        egg_id = plane.add_egg()
        first = plane.deploy("stuck", egg_id=egg_id, target_member="m1")
        await plane.reached(first.operation_id, "create")
        await plane.restart()
        calls = len(plane.world.calls)
        while Call("create", "stuck") not in plane.world.calls[calls:]:
            await asyncio.sleep(0.002)
        second = await plane.ended(plane.deploy("free", egg_id=egg_id))
        assert second.status == "succeeded", second.error
        assert plane.world.state.instances["free"].member == "m2"

    play(story)


def test_an_update_stays_where_the_instance_is(play: Play) -> None:
    async def story(plane: Plane) -> None:
        plane.world.rewrite({"members": THREE})
        await plane.ended(plane.deploy(target_member="m2"))
        plane.world.state.instances["web"].member = "m3"  # moved by an evacuation
        plane.world.rewrite({"members": {**THREE, "m2": {"online": False}}})
        operation = await plane.ended(plane.control.deployments.update(ADMIN, 1, UpdateRequest()))
        assert operation.status == "succeeded", operation.error
        assert plane.deployment().instance_info["member"] == "m3"

    play(story)


def test_a_retry_goes_elsewhere_only_if_nothing_was_made(play: Play) -> None:
    async def story(plane: Plane) -> None:
        dead = {"members": {"m1": {"online": False}, "m2": {}}}
        plane.world.rewrite(
            {"members": {"m1": {}, "m2": {"memory_used": "9GiB"}},
             "faults": [{"action": "create", "kind": "failed"}]}
        )  # fmt: skip
        await plane.ended(plane.deploy("bare"))
        await plane.ended(plane.deploy("kept", egg=make_egg("kept", **VOLUME)))
        plane.world.rewrite(dead)
        bare = await plane.ended(plane.control.deployments.retry(ADMIN, 1))
        assert bare.status == "succeeded", bare.error
        assert plane.world.state.instances["bare"].member == "m2"
        kept = await plane.ended(plane.control.deployments.retry(ADMIN, 2))
        assert kept.error is not None
        assert kept.error["code"] == "member_offline"
        assert "kept" not in plane.world.state.instances

    play(story)


def test_a_member_that_is_away_for_a_moment_is_waited_for(play: Play) -> None:
    async def story(plane: Plane) -> None:
        stuck = {"action": "resolve", "kind": "hang"}
        plane.world.rewrite({"members": THREE, "faults": [stuck]})
        accepted = plane.deploy(target_member="m3")
        await plane.reached(accepted.operation_id, "image")
        plane.world.rewrite({"members": {**THREE, "m3": {"online": False, "message": "no heartbeat"}}})
        await plane.restart()
        while plane.world.calls.count(Call("create", "web")) < 2:
            await asyncio.sleep(0.002)
        plane.world.rewrite({"members": THREE})
        assert (await plane.ended(accepted)).status == "succeeded"
        assert plane.world.state.instances["web"].member == "m3"

    play(story)


def test_a_member_that_stays_away_is_the_reason(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "_PATIENCE", 0.1)

    async def story(plane: Plane) -> None:
        plane.world.rewrite({"members": THREE, "faults": [{"action": "resolve", "kind": "hang"}]})
        doomed = plane.deploy("doomed", target_member="m3")
        await plane.reached(doomed.operation_id, "image")
        plane.world.rewrite({"members": {**THREE, "m3": {"online": False, "message": "no heartbeat"}}})
        await plane.restart()
        alive = await plane.ended(plane.deploy("alive", egg_id=1, target_member="m1"))
        assert alive.status == "succeeded"
        operation = await plane.ended(doomed)
        assert operation.error is not None
        assert operation.error["code"] == "member_offline"
        assert "no heartbeat" in operation.error["message"]
        assert "m1 (online)" in operation.error["hint"]
        assert "doomed" not in plane.world.state.instances

    play(story)


@pytest.mark.parametrize("fault", ["failed", "temporary"])
def test_a_failure_that_is_not_the_members_keeps_its_words(
    play: Play, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(execution, "_PATIENCE", 0.1)

    async def story(plane: Plane) -> None:
        script = {"action": "create", "kind": fault, "message": "disk full"}
        plane.world.rewrite({"members": THREE, "faults": [script]})
        operation = await plane.ended(plane.deploy(target_member="m3"))
        assert operation.error is not None
        assert "disk full" in operation.error["message"]

    play(story)
