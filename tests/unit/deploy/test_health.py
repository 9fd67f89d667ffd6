"""Health: each cluster on its own, written seldom, and never slower for the dead."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from iceshelves.clusters import health, roster
from iceshelves.clusters.health import AgentSeen, Finding, Health, judge, judge_agent, record
from iceshelves.clusters.reaching import AGENT
from iceshelves.connections.values import Scenario
from iceshelves.core import clock
from iceshelves.core.settings import Settings
from iceshelves.deploy.control import ControlPlane
from iceshelves.providers.base import Member, ServerInfo
from iceshelves.providers.fake.world import FakeWorld, forget_world, open_world
from iceshelves.store.models import Agent, Cluster

INTERVAL = 2.0
SERVER = ServerInfo("incus", "6.0.4", "1.0", "h1", False, frozenset(), frozenset({"container"}))
HANGS = {"faults": [{"action": action, "kind": "hang"} for action in ("probe", "watch", "validate")]}
REFUSES = {"faults": [{"action": "probe"}, {"action": "watch"}]}


def cluster_row(name: str, **more: Any) -> Cluster:
    fields: dict[str, Any] = {"provider": "fake", "connection_method": "unix-socket"}
    fields |= {"tenant_id": 1, "name": name, "endpoint_url": f"fake://health-{name}", "created_by": "admin"}
    return Cluster(**{**fields, **more})


@pytest.fixture
def quick(plane: Any) -> Any:
    """The plane, whose monitor looks every :data:`INTERVAL` seconds."""
    plane.control.database.close()
    settings = Settings(data=plane.data, health_interval=INTERVAL, deployment_timeout=20)
    plane.control = ControlPlane(settings, plane.engine)
    return plane


@pytest.fixture
def add(plane: Any) -> Iterator[Callable[..., int]]:
    """Add a cluster with a world of its own."""
    added: list[str] = []

    def one(name: str, script: dict[str, Any] | None = None, **more: Any) -> int:
        open_world(Scenario(f"health-{name}")).rewrite(script or {})
        added.append(name)
        with plane.control.database.write() as session:
            row = cluster_row(name, **more)
            session.add(row)
            session.flush()
            return row.id

    yield one
    for name in added:
        forget_world(f"health-{name}")


def world(name: str) -> FakeWorld:
    return open_world(Scenario(f"health-{name}"))


def row_of(plane: Any, cluster_id: int) -> Cluster:
    with plane.control.database.read() as session:
        return session.get_one(Cluster, cluster_id)


async def until(condition: Callable[[], bool], seconds: float = 6.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.mark.slow
def test_200_clusters_of_which_50_are_dead(quick: Any, play: Any, add: Any) -> None:
    """The live ones are never known by older news than one interval, and deploy as if alone."""
    dead = [add(f"dead-{n}", HANGS if n % 2 else REFUSES) for n in range(50)]
    live = [add(f"live-{n}") for n in range(150)]
    egg_id = quick.add_egg()

    def ages() -> list[float]:
        with quick.control.database.read() as session:
            query = sa.select(Cluster.last_check).where(Cluster.id.in_(live), Cluster.status == "active")
            now = clock.now()
            return [(now - moment).total_seconds() for moment in session.execute(query).scalars()]

    async def story(_plane: Any) -> None:
        await until(lambda: len(ages()) == len(live))
        for quick.cluster_id in dead:
            quick.deploy("stuck", egg_id=egg_id)
        oldest, took = 0.0, list[float]()
        end = time.monotonic() + 4 * INTERVAL
        while time.monotonic() < end:
            quick.cluster_id = live[len(took)]
            began = time.monotonic()
            assert (await quick.ended(quick.deploy("web", egg_id=egg_id))).status == "succeeded"
            took.append(time.monotonic() - began)
            known = await asyncio.to_thread(ages)
            assert len(known) == len(live)
            oldest = max(oldest, *known)
            await asyncio.sleep(0.1)
        assert oldest <= INTERVAL
        assert sorted(took)[len(took) // 2] < 1.0
        refused, hung = row_of(quick, dead[0]), row_of(quick, dead[1])
        assert (refused.status, hung.status) == ("error", "error")
        assert hung.status_message == "It did not answer within 5 s."

    play(story)


def test_a_cluster_that_comes_back_is_active_within_an_interval(quick: Any, play: Any, add: Any) -> None:
    back = add("back", REFUSES)

    async def story(_plane: Any) -> None:
        await until(lambda: row_of(quick, back).status == "error")
        failed = row_of(quick, back)
        assert failed.status_message == "the fake was told to fail"
        world("back").rewrite({})
        with quick.control.bus.subscribe(f"cluster:{back}") as reader:
            await until(lambda: row_of(quick, back).status == "active", INTERVAL)
            assert await reader.wait(1)
        now = row_of(quick, back)
        assert (now.status, now.status_message) == ("active", "fake 1 on health-back")
        assert failed.status_since is not None
        assert now.status_since is not None
        assert now.status_since > failed.status_since
        assert now.updated_on == failed.updated_on  # a look is no change of the cluster

    play(story)


def test_one_probe_at_a_time_and_members_now_and_then(
    quick: Any, play: Any, add: Any, caplog: pytest.LogCaptureFixture
) -> None:
    script = {"members": {"m1": {}, "m2": {"online": False, "message": "no heartbeat"}}}
    both = add("both", script)
    caplog.set_level(logging.INFO, "iceshelves.clusters.health")

    async def story(_plane: Any) -> None:
        await until(lambda: row_of(quick, both).status == "degraded")
        assert row_of(quick, both).is_cluster
        assert "1 of 2 members are online: m2 is " in row_of(quick, both).status_message
        before = [call.action for call in world("both").calls]
        await until(lambda: len(world("both").calls) >= len(before) + 4)

    play(story)
    actions = [call.action for call in world("both").calls]
    probes, members = actions.count("probe"), actions.count("members")
    assert probes >= 3
    assert members == -(-probes // 2)
    assert world("both").most_at_once["probe"] == 1
    told = [entry for entry in caplog.messages if "cluster both is degraded" in entry]
    assert len(told) == 1


def test_clusters_are_taken_up_and_let_go_without_a_restart(
    quick: Any, play: Any, add: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roster, "_LOOK_SECONDS", 0.2)

    async def story(_plane: Any) -> None:
        await asyncio.sleep(0.1)
        late = add("late")
        await until(lambda: row_of(quick, late).status == "active")
        with quick.control.database.write() as session:
            session.get_one(Cluster, late).endpoint_url = "fake://health-moved"
        await until(lambda: "health-moved" in row_of(quick, late).status_message, 8)
        with quick.control.database.write() as session:
            session.get_one(Cluster, late).is_active = False
        await until(lambda: late not in quick.control._roster._tasks, 6)
        seen = len(world("moved").calls)
        await asyncio.sleep(INTERVAL)
        assert len(world("moved").calls) == seen
        forget_world("health-moved")

    play(story)


def found(status: str = "active", message: str = "fine", seconds: float = 0.0) -> Finding:
    return Finding(Health(status, message), clock.later(seconds), SERVER if status == "active" else None)


def test_what_is_written_and_told(plane: Any) -> None:
    key = plane.cluster_id
    database = plane.control.database
    (first,) = record(database, {key: found()})
    assert (first.before, first.health.status) == ("unknown", "active")
    begun = row_of(plane, key)
    assert begun.server_info["version"] == "6.0.4"
    assert record(database, {key: found(seconds=1)}) == []
    later = row_of(plane, key)
    assert later.last_check is not None
    assert begun.last_check is not None
    assert later.last_check > begun.last_check
    assert later.status_since == begun.status_since
    # another server was slower: its older news change nothing
    assert record(database, {key: found("error", "gone", seconds=0.5)}) == []
    (words,) = record(database, {key: found("active", "upgraded", seconds=2)})
    assert words.before == "active"
    assert row_of(plane, key).status_since == begun.status_since
    record(database, {key: found("error", "gone\x00", seconds=3)})
    ended = row_of(plane, key)
    assert (ended.status, ended.status_message) == ("error", "gone\ufffd")
    assert ended.status_since == ended.last_check
    assert ended.server_info["version"] == "6.0.4"
    assert record(database, {999: found()}) == []


def test_a_server_is_judged_by_its_kinds_and_members() -> None:
    assert judge(SERVER) == Health("active", "incus 6.0.4 on h1")
    assert judge(replace(SERVER, kinds=frozenset())).status == "error"
    members = [Member("m1", True, "Online"), Member("m2", False, "Offline")]
    assert judge(SERVER, members) == Health("degraded", "1 of 2 members are online: m2 is offline")
    assert judge(SERVER, members[:1]).status == "active"


@pytest.mark.parametrize(
    ("seen", "revoked", "status"),
    [(0, False, "active"), (129, False, "active"), (131, False, "error"), (0, True, "error")],
)
def test_an_agent_may_miss_two_polls(seen: float, revoked: bool, status: str) -> None:
    now = clock.now()
    agent = AgentSeen(True, now - timedelta(seconds=seen), 60, revoked)
    assert judge_agent(agent, now).status == status


def test_an_agent_that_never_came_is_unknown() -> None:
    assert judge_agent(AgentSeen(False, None, 60), clock.now()).status == "unknown"
    assert "has not come yet" in judge_agent(AgentSeen(True, None, 60), clock.now()).message


def test_a_cluster_of_an_agent_is_as_its_agent_is(plane: Any, add: Any) -> None:
    """What the agent reports of its hypervisor stands while the agent comes."""
    key = add("agent", connection_method=AGENT)
    database = plane.control.database

    def seen(seconds: float) -> Cluster:
        with database.write() as session:
            agent = session.execute(sa.select(Agent)).scalar_one()
            agent.last_seen = clock.later(-seconds)
        health._record_agents(database)
        return row_of(plane, key)

    with database.write() as session:
        session.add(Agent(tenant_id=1, cluster_id=key, key_hash="x", poll_interval=60))
    health._record_agents(database)
    assert row_of(plane, key).status == "unknown"
    assert seen(1).status == "active"
    with database.write() as session:
        assert health.apply(session.get_one(Cluster, key), Health("error", "incus is down"), clock.now())
    assert seen(2).status_message == "incus is down"
    assert "was last seen at" in seen(500).status_message
    assert seen(1).status == "active"


def test_the_interval_is_a_setting() -> None:
    read = Settings.from_environment({"ICESHELVES_HEALTH_INTERVAL": "1m", "ICESHELVES_DATA": "x"})
    assert (read.health_interval, read.data) == (60.0, Path("x"))
    with pytest.raises(Exception, match="ICESHELVES_HEALTH_INTERVAL is less than a second"):
        Settings.from_environment({"ICESHELVES_HEALTH_INTERVAL": "0"})
