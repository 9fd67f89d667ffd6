"""Members of a fake world: what a script says of them, and where instances are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from iceshelves.connections.values import Scenario
from iceshelves.core.errors import Conflict, InvalidInput, NotFound, Temporary
from iceshelves.providers import base
from iceshelves.providers.base import InstanceSpec, Mark, require
from iceshelves.providers.fake.provider import FakeProvider
from iceshelves.providers.fake.world import forget_world, open_world

pytestmark = pytest.mark.anyio

MARK = Mark("unit", "dep", "op1", 1, "web@1.0.0")
THREE = {"members": {"m1": {"roles": ["leader"]}, "m2": {"memory_used": "8GiB"}, "m3": {}}}


@pytest.fixture
def fake() -> Iterator[FakeProvider]:
    yield FakeProvider(open_world(Scenario("members", None, THREE)))
    forget_world("members")


async def placed_on(fake: FakeProvider, member: str, name: str = "web-1") -> InstanceSpec:
    image = await require(fake, base.Images).resolve("debian/13", "container")
    spec = InstanceSpec(name, "container", image, MARK, member=member)
    await require(fake, base.Lifecycle).validate(spec)
    await require(fake, base.Lifecycle).create(spec)
    return spec


async def member_of(fake: FakeProvider, name: str = "web-1") -> str | None:
    found = await require(fake, base.Lifecycle).find(name)
    assert found is not None
    return found.member


async def test_a_survey_counts_what_is_where(fake: FakeProvider) -> None:
    await placed_on(fake, "m2")
    survey = await require(fake, base.Placement).survey()
    capacities = [member.capacity for member in survey]
    assert [capacity.instances for capacity in capacities if capacity] == [0, 1, 0]
    assert [capacity.memory_used >> 30 for capacity in capacities if capacity] == [2, 8, 2]
    assert survey[0].roles == ("leader",)


async def test_evacuate_and_restore_move_what_is_there_and_can_be_repeated(fake: FakeProvider) -> None:
    placement = require(fake, base.Placement)
    await placed_on(fake, "m1")
    told: list[str] = []
    for _ in range(2):
        await placement.evacuate("m1", lambda _fraction, words: told.append(words))
    assert told == ["Migrating web-1"]
    assert [member.status for member in await placement.members()] == ["Evacuated", "Online", "Online"]
    assert await member_of(fake) == "m2"
    with pytest.raises(Conflict) as caught:
        await placed_on(fake, "m1", "web-2")
    assert caught.value.code == "member_evacuated"
    for _ in range(2):
        await placement.restore("m1")
    assert [member.status for member in await placement.members()] == ["Online"] * 3
    assert await member_of(fake) == "m1"


async def test_without_another_member_instances_are_stopped_until_it_is_back(fake: FakeProvider) -> None:
    fake.world.rewrite({"members": {"m1": {}, "m2": {"online": False}}})
    spec = await placed_on(fake, "m1")
    await require(fake, base.Lifecycle).start(spec.name)
    await require(fake, base.Placement).evacuate("m1")
    found = await require(fake, base.Lifecycle).find(spec.name)
    assert found is not None
    assert (found.member, found.power) == ("m1", "stopped")
    await require(fake, base.Placement).restore("m1")
    assert (await require(fake, base.Lifecycle).find(spec.name)) == replace(found, power="running")


async def test_a_member_that_is_away_answers_nothing(fake: FakeProvider) -> None:
    spec = await placed_on(fake, "m1")
    fake.world.rewrite({"members": {"m1": {}, "m2": {"online": False, "message": "no heartbeat"}}})
    with pytest.raises(Temporary):
        await require(fake, base.Lifecycle).create(replace(spec, name="web-2", member="m2"))
    assert await require(fake, base.Lifecycle).find("web-2") is None
    with pytest.raises(Conflict, match="no heartbeat"):
        await require(fake, base.Placement).evacuate("m2")
    with pytest.raises(NotFound):
        await require(fake, base.Placement).evacuate("m3")
    with pytest.raises(InvalidInput) as caught:
        await require(fake, base.Lifecycle).validate(replace(spec, member="m3"))
    assert "m1 (online), m2 (offline)" in str(caught.value.hint)
