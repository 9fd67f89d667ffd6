"""The list of all instances: kept current, judged, adopted; and nothing else is ever touched."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest
import sqlalchemy as sa

from iceshelves.access import bootstrap
from iceshelves.access.policy import Actor, Role
from iceshelves.clusters import inventory
from iceshelves.clusters.adoption import Outcome
from iceshelves.clusters.inventory import record_full, record_some
from iceshelves.clusters.reaching import AGENT
from iceshelves.core.errors import Conflict, InvalidInput, NotFound
from iceshelves.deploy.messages import Enrolment, Poll, SeenInstance
from iceshelves.providers.base import Instance, Lifecycle, Mark
from iceshelves.providers.fake.world import FakeInstance
from iceshelves.providers.ownership import adoption
from iceshelves.store.models import AuditEntry, Cluster, KnownInstance

ADMIN = Actor(1, 1, "admin", Role.ADMIN)
STRANGER = Actor(2, 9, "stranger", Role.ADMIN)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory, "_GATHER", 0.01)
    monkeypatch.setattr(inventory, "_REST_SECONDS", (0.01, 0.05))
    monkeypatch.setattr(inventory, "_FRESH_SECONDS", 0.0)


def add(plane: Any, name: str, mark: Mark | None = None) -> FakeInstance:
    """Somebody else makes an instance, and nobody is told."""
    made = FakeInstance(name, "container", "f" * 64, mark, power="running", config={"limits.cpu": "1"})
    plane.world.state.instances[name] = made
    return made


def rows(plane: Any) -> dict[str, KnownInstance]:
    with plane.control.database.read() as session:
        found = session.execute(sa.select(KnownInstance)).scalars()
        return {row.name: row for row in found}


def owners(plane: Any) -> dict[str, str]:
    return {name: row.ownership for name, row in rows(plane).items()}


def installation(plane: Any) -> str:
    with plane.control.database.read() as session:
        return bootstrap.installation_id(session)


async def until(condition: Callable[[], bool], seconds: float = 3.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def seen(name: str, mark: Mark | None = None, **more: Any) -> Instance:
    return Instance(name, "container", "running", mark, architecture="x86_64", **more)


def test_the_table_follows_what_happens(plane: Any, play: Any) -> None:
    add(plane, "theirs")

    async def story(_plane: Any) -> None:
        await until(lambda: owners(plane) == {"theirs": "foreign"})
        await plane.ended(plane.deploy("web"))
        await until(lambda: owners(plane).get("web") == "ours" and rows(plane)["web"].power == "running")
        assert rows(plane)["web"].deployment_uid == plane.deployment().uid
        await plane.ended(plane.control.deployments.delete(ADMIN, 1))
        await until(lambda: owners(plane) == {"theirs": "foreign"})
        add(plane, "more")
        plane.world.state.instances["theirs"].power = "stopped"
        await plane.world.tell("stopped", "theirs")
        await plane.world.tell("created", "more")
        await until(lambda: "more" in rows(plane) and rows(plane)["theirs"].power == "stopped")
        calls = [call.action for call in plane.world.calls]
        assert calls.count("instances") == 1  # everything else was read one by one

    play(story)


def test_many_changes_at_once_are_one_read(plane: Any, play: Any) -> None:
    async def story(_plane: Any) -> None:
        await until(lambda: any(call.action == "instances" for call in plane.world.calls))
        await asyncio.sleep(0.1)
        before = len(plane.world.calls)
        for number in range(100):
            add(plane, f"x{number}")
            await plane.world.tell("created", f"x{number}")
        await until(lambda: len(rows(plane)) == 100)
        assert [call.action for call in plane.world.calls[before:]].count("instances") <= 2
        assert [call.action for call in plane.world.calls[before:]].count("instance") == 0

    play(story)


def test_a_cluster_that_is_away_keeps_its_rows_and_is_read_when_it_is_back(plane: Any, play: Any) -> None:
    add(plane, "theirs")

    async def story(_plane: Any) -> None:
        await until(lambda: "theirs" in rows(plane))
        plane.world.rewrite({"faults": [{"action": action} for action in ("instance", "instances", "watch")]})
        await plane.world.tell("stopped", "theirs")
        await until(lambda: any(call.action == "instance" for call in plane.world.calls))
        del plane.world.state.instances["theirs"]
        add(plane, "later")
        await asyncio.sleep(0.2)
        assert set(rows(plane)) == {"theirs"}
        plane.world.rewrite({})
        plane.control.bus.publish(f"cluster:{plane.cluster_id}")  # as when its health changes
        await until(lambda: set(rows(plane)) == {"later"})

    play(story)


def test_everything_is_read_again_now_and_then(
    plane: Any, play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventory, "RECONCILE_SECONDS", 0.3)

    async def story(_plane: Any) -> None:
        await until(lambda: any(call.action == "instances" for call in plane.world.calls))
        add(plane, "unseen")  # no event of it ever came
        await until(lambda: "unseen" in rows(plane))

    play(story)


def test_a_full_report_replaces_what_was_known(plane: Any) -> None:
    database, key = plane.control.database, plane.cluster_id
    ours = installation(plane)
    nobodys = Mark(ours, "no-such-deployment", "op", 1, "web@1")
    record_full(database, key, [seen("a"), seen("b", nobodys), seen("c", replace(nobodys, installation="x"))])
    assert owners(plane) == {"a": "foreign", "b": "conflict", "c": "foreign"}
    assert rows(plane)["b"].deployment_uid == "no-such-deployment"
    assert rows(plane)["c"].deployment_uid is None
    twin = adoption(ours)
    record_some(database, key, {"a": seen("a", twin), "b": None})
    assert owners(plane) == {"a": "adopted", "c": "foreign"}
    record_some(database, key, {"copy": seen("copy", twin)})
    assert owners(plane) == {"a": "conflict", "copy": "conflict", "c": "foreign"}
    record_some(database, key, {"copy": None})
    assert owners(plane)["a"] == "adopted"
    before = rows(plane)["a"].seen_on
    record_full(database, key, [seen("a", twin)])
    assert owners(plane) == {"a": "adopted"}
    assert rows(plane)["a"].seen_on > before


def test_an_agents_report_is_all_that_there_is(plane: Any) -> None:
    mark = adoption(installation(plane))

    agents = plane.control.agents
    with plane.control.database.write() as session:
        session.get_one(Cluster, plane.cluster_id).connection_method = AGENT
    key = agents.enrol(Enrolment(token=agents.invite(ADMIN, plane.cluster_id).reveal())).key

    def report(*told: SeenInstance) -> dict[str, str]:
        poll = Poll(spool="0" * 36, instances=list(told))
        asyncio.run(agents.poll(agents.identify(key), poll, lambda: True))
        return owners(plane)

    a = SeenInstance("a", "container", "running", "x86_64", mark=asdict(mark))
    b = SeenInstance("b", "container", "stopped", "x86_64", mark={"installation": 7})
    assert report(a, b) == {"a": "adopted", "b": "foreign"}
    away = SeenInstance("a", "container", "error", member="m2")  # and so nobody could read its mark
    assert report(away) == {"a": "adopted"}
    assert report() == {}


def test_what_a_hypervisor_says_is_kept_within_bounds(plane: Any) -> None:
    mark = Mark(installation(plane), "\x00" * 99, "op", 1, "web@1")
    odd = seen("a", mark, member="m" * 99, image="i" * 99, description="\x00\ud800")
    record_full(plane.control.database, plane.cluster_id, [odd])
    row = rows(plane)["a"]
    assert (len(row.deployment_uid or ""), len(row.member or ""), len(row.image)) == (36, 63, 64)
    assert row.description == "\ufffd?"


def test_what_is_on_a_member_that_is_away_stays_what_it_was(plane: Any) -> None:
    database, key = plane.control.database, plane.cluster_id
    record_full(database, key, [seen("a", adoption(installation(plane)))])
    away = Instance("a", "container", "error", None, member="m2", readable=False)
    record_full(database, key, [away, replace(away, name="never-seen")])
    assert owners(plane) == {"a": "adopted"}
    assert rows(plane)["a"].power == "error"


def test_a_name_that_a_deployment_wants_is_a_conflict(plane: Any) -> None:
    record_full(plane.control.database, plane.cluster_id, [seen("web")])
    plane.deploy("web")
    record_some(plane.control.database, plane.cluster_id, {})
    assert owners(plane) == {"web": "conflict"}
    assert "Deployment 1 is called web too" in rows(plane)["web"].reason


def test_the_rows_of_a_deleted_cluster_go(plane: Any) -> None:
    control = plane.control
    record_full(control.database, plane.cluster_id, [seen("a")])
    control.clusters.delete(ADMIN, plane.cluster_id)
    assert rows(plane) == {}
    record_full(control.database, plane.cluster_id, [seen("a")])
    record_some(control.database, plane.cluster_id, {"a": seen("a")})
    assert rows(plane) == {}


def test_the_rows_of_a_cluster_kept_for_the_record_go_too(plane: Any) -> None:
    record_full(plane.control.database, plane.cluster_id, [seen("a")])
    with plane.control.database.write() as session:
        session.get_one(Cluster, plane.cluster_id).is_active = False
    plane.control._delete_old()
    assert rows(plane) == {}


def test_scan_adopt_and_release(plane: Any, play: Any) -> None:
    theirs = add(plane, "theirs")
    alien = add(plane, "alien", Mark("another", "uid", "op", 1, "web@1"))
    adoptions, key = plane.control.adoptions, plane.cluster_id

    async def story(_plane: Any) -> None:
        await plane.ended(plane.deploy("web"))
        scan = await adoptions.scan(ADMIN, key)
        assert [judged.instance.name for judged in scan.instances] == ["alien", "theirs", "web"]
        assert scan.counts == {"ours": 1, "adopted": 0, "foreign": 2, "conflict": 0}
        assert theirs.mark is None
        ended = await adoptions.adopt(ADMIN, key, ["theirs", "web", "alien", "nothing", "theirs"], "req-1")
        assert [outcome.name for outcome in ended] == ["theirs", "web", "alien", "nothing"]
        codes = [outcome.error.code if outcome.error else None for outcome in ended]
        assert codes == [None, "not_ours", "not_ours", "instance_not_found"]
        assert "our own deployment 1 (local:web)" in ended[1].error.message
        assert "another installation" in ended[2].error.message
        assert theirs.config == {"limits.cpu": "1"}
        assert owners(plane)["theirs"] == "adopted"
        mark = theirs.mark
        assert await adoptions.adopt(ADMIN, key, ["theirs"]) == [Outcome("theirs")]
        assert theirs.mark == mark
        assert (await adoptions.scan(ADMIN, key)).counts["adopted"] == 1
        notes: list[str] = []
        for name, code in (("theirs", None), ("theirs", None), ("web", "not_ours"), ("alien", "not_ours")):
            (outcome,) = await adoptions.release(ADMIN, key, [name])
            assert (outcome.error.code if outcome.error else None) == code
            notes.append(outcome.note)
        assert notes == ["", "not marked, nothing to do", "", ""]
        assert theirs.mark is None
        assert alien.mark is not None
        await until(lambda: owners(plane)["theirs"] == "foreign")
        with plane.control.database.read() as session:
            query = sa.select(AuditEntry).where(AuditEntry.action.in_(["cluster.adopt", "cluster.release"]))
            first, *_ = entries = list(session.execute(query).scalars())
        assert len(entries) == 6
        assert (first.actor, first.object, first.request_id) == ("admin", "local", "req-1")
        assert first.details == {"instances": ["theirs", "web", "alien", "nothing"]}

    play(story)


def test_who_may_not_and_what_is_not_named(plane: Any, play: Any) -> None:
    adoptions, key = plane.control.adoptions, plane.cluster_id

    async def story(_plane: Any) -> None:
        for refused in (
            adoptions.scan(STRANGER, key),
            adoptions.adopt(STRANGER, key, ["a"]),
            adoptions.release(STRANGER, key, ["a"]),
        ):
            with pytest.raises(NotFound):
                await refused
        with pytest.raises(InvalidInput, match="No instance is named"):
            await adoptions.adopt(ADMIN, key, [])

    play(story)


def test_what_is_adopted_or_foreign_is_never_a_deployments_to_change(plane: Any, play: Any) -> None:
    """Neither by deploying over it, nor by deleting the deployment that wanted its name."""
    add(plane, "theirs")
    adopted = add(plane, "web")

    async def story(_plane: Any) -> None:
        await plane.control.adoptions.adopt(ADMIN, plane.cluster_id, ["web"])
        egg_id = plane.add_egg()
        for name in ("web", "theirs"):
            accepted = plane.deploy(name, egg_id=egg_id)
            operation = await plane.ended(accepted)
            assert operation.status == "failed"
            assert (operation.error or {})["code"] == "instance_exists"
            await plane.ended(plane.control.deployments.delete(ADMIN, accepted.deployment_id))
            assert name in plane.world.state.instances
        provider = await plane.control._providers.get(plane.cluster_id)
        lifecycle = provider.offers(Lifecycle)
        for mark in (Mark(installation(plane), "uid", "op", 1, "web@1"), adoption(installation(plane))):
            for name in ("web", "theirs"):
                with pytest.raises(Conflict) as refused:
                    await lifecycle.delete(name, mark)
                assert refused.value.code == "not_ours"
        assert adopted.power == "running"

    play(story)
