"""Operations that an agent carries out: killed anywhere, cut off anywhere, and never done twice."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from iceshelves.agent.disk import Disk
from iceshelves.clusters.requests import NewCluster
from iceshelves.core import clock
from iceshelves.core.errors import Conflict, IceShelvesError, Temporary, Unauthenticated
from iceshelves.deploy import claims
from iceshelves.deploy.agents import Agents
from iceshelves.deploy.messages import End, Enrolment, Entry, Poll, PollAnswer
from iceshelves.deploy.requests import UpdateRequest
from iceshelves.operations.states import OperationStatus
from iceshelves.providers.fake.world import forget_world
from iceshelves.store.models import Agent, Cluster, Operation, Revision

from .agents import Beside, enrol, hurry
from .conftest import ADMIN, Killed, Plane, make_egg

SPOOL = "0" * 8 + "-0000-4000-8000-" + "0" * 12
OTHER = "1" * 8 + "-0000-4000-8000-" + "0" * 12
EGG = make_egg(
    volumes=[{"name": "data", "path": "/data", "size": "1GiB"}],
    checks=[{"name": "answers", "command": ["probe"], "timeout": 5}],
)
GUEST = {"guests": {"*": {"duration": 0.05, "output": [{"text": "one"}, {"text": "two", "at": 0.02}]}}}

Play = Callable[[Callable[[Plane], Awaitable[None]]], None]


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


def poll_of(plane: Plane, key: str, **told: object) -> Awaitable[PollAnswer]:
    agents: Agents = plane.control.agents
    return agents.poll(agents.identify(key), Poll(spool=SPOOL, **told), lambda: False)  # type: ignore[arg-type]


def created(plane: Plane) -> int:
    """How many instances were ever made: each gets an address of its own."""
    return plane.world.state.next_address - 10


# ---- the whole life of a deployment


def test_deployed_updated_and_deleted_by_an_agent(play: Play, tmp_path: Path) -> None:
    async def story(plane: Plane) -> None:
        plane.world.rewrite(GUEST)
        beside = Beside(plane, tmp_path / "agent")
        beside.start()
        operation = await plane.ended(plane.deploy(egg=EGG))
        assert (operation.status, operation.error) == ("succeeded", None)
        assert set(plane.steps(operation.id).values()) == {"done"}
        assert plane.log("guest") == ["one", "two"]
        deployment = plane.deployment()
        assert deployment.status == "completed"
        assert deployment.instance_info["ipv4"]
        newer = plane.add_egg(make_egg(version="2.0.0", volumes=EGG.metadata.raw["volumes"]))
        update = plane.control.deployments.update(ADMIN, 1, UpdateRequest(egg_id=newer))
        assert (await plane.ended(update)).status == "succeeded"
        assert (await plane.ended(plane.control.deployments.delete(ADMIN, 1))).status == "succeeded"
        assert plane.world.state.instances == {}
        await beside.stop()

    play(story)


def test_a_failing_update_goes_back(play: Play, tmp_path: Path) -> None:
    async def story(plane: Plane) -> None:
        beside = Beside(plane, tmp_path / "agent")
        beside.start()
        await plane.ended(plane.deploy())
        bad = plane.add_egg(make_egg(version="2.0.0"))
        plane.world.rewrite({"guests": {"plain@2.*": {"result": "error", "errors": ["boom"]}}})
        request = UpdateRequest(egg_id=bad, on_failure="cleanup")
        failed = await plane.ended(plane.control.deployments.update(ADMIN, 1, request))
        assert failed.status == "failed"
        async with asyncio.timeout(10):
            while plane.deployment().status != "completed":
                await asyncio.sleep(0.01)
        await beside.stop()

    play(story)


def test_cancelled_while_the_agent_works(play: Play, tmp_path: Path) -> None:
    async def story(plane: Plane) -> None:
        plane.world.rewrite({"guests": {"*": {"duration": 30}}})
        beside = Beside(plane, tmp_path / "agent")
        beside.start()
        accepted = plane.deploy()
        await plane.reached(accepted.operation_id, "cloud-init")
        plane.control.cancel(ADMIN, accepted.operation_id)
        assert (await plane.ended(accepted)).status == "cancelled"
        assert plane.world.state.instances == {}
        assert not plane.deployment().living
        polls = len(beside.line.polls)
        await asyncio.sleep(0.2)
        assert len(beside.line.polls) - polls < 20, "polls are held again"
        await beside.stop()

    play(story)


def test_cancelled_before_any_agent_came(play: Play) -> None:
    async def story(plane: Plane) -> None:
        enrol(plane)
        accepted = plane.deploy()
        plane.control.cancel(ADMIN, accepted.operation_id)
        assert (await plane.ended(accepted)).status == "cancelled"
        assert not plane.deployment().living

    play(story)


def test_an_agent_that_never_comes_is_not_waited_for_for_ever(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(plane: Plane) -> None:
        enrol(plane)
        accepted = plane.deploy(timeout=0.01)
        await asyncio.sleep(0.05)
        await plane.control._look_after(0.0)
        assert plane.operation(accepted.operation_id).status == "pending", "it may still come"
        monkeypatch.setattr(claims, "_GRACE", 0.0)
        await plane.control._look_after(0.0)
        operation = plane.operation(accepted.operation_id)
        assert operation.error is not None
        assert (operation.status, operation.error["code"]) == ("timeout", "agent_away")
        assert not plane.deployment().living

    play(story)


def test_whoever_waits_is_told_that_no_agent_has_come(play: Play) -> None:
    async def story(plane: Plane) -> None:
        enrol(plane)
        plane.deploy()
        async with asyncio.timeout(5):
            while not plane.log():
                await asyncio.sleep(0.01)
        await plane.control._look_after(0.0)
        (line,) = plane.log()
        assert line.startswith("Waiting for the cluster's agent.")
        assert "has not come yet" in line

    play(story)


def test_no_more_at_once_than_the_cluster_allows(play: Play, tmp_path: Path) -> None:
    async def story(plane: Plane) -> None:
        plane.limit_cluster(1)
        plane.world.rewrite({"guests": {"*": {"duration": 0.05}}})
        beside = Beside(plane, tmp_path / "agent")
        beside.start()
        egg_id = plane.add_egg()
        accepted = [plane.deploy(f"web-{number}", egg_id=egg_id) for number in range(4)]
        for each in accepted:
            assert (await plane.ended(each)).status == "succeeded"
        assert max(len(poll.running) for poll in beside.line.polls) == 1
        await beside.stop()

    play(story)


# ---- killed and cut off


@pytest.mark.slow
def test_killed_at_every_moment(template: Path, tmp_path: Path) -> None:
    """The agent dies at each kind of write and poll, and another process goes on: one instance, no loss."""
    count = itertools.count()

    def fresh() -> Plane:
        return Plane(tmp_path / f"plane-{next(count)}", template)

    async def deployed(plane: Plane, moment: str | None) -> list[str]:
        seen: list[str] = []

        def on_moment(name: str) -> None:
            first = name not in seen
            seen.append(name)
            if name == moment and first:
                raise Killed(name)

        plane.world.rewrite(GUEST)
        await plane.control.start()
        beside = Beside(plane, plane.data / "agent", on_moment)
        beside.start()
        try:
            accepted = plane.deploy(egg=EGG)
            if moment is not None:
                async with asyncio.timeout(10):
                    await beside.killed.wait()
                await beside.kill()
                beside.start()
            operation = await plane.ended(accepted)
            assert (operation.status, operation.error) == ("succeeded", None), moment
            assert created(plane) == 1, moment
            assert list(plane.world.state.instances) == ["web"], moment
            assert plane.log("guest") == ["one", "two"], moment
            await asyncio.sleep(0.02)
            return seen
        finally:
            await beside.stop()
            await plane.control.stop()
            forget_world(plane.world_name)

    moments = list(dict.fromkeys(asyncio.run(deployed(fresh(), None))))
    assert len(moments) > 30, moments
    for moment in moments:
        asyncio.run(deployed(fresh(), moment))


def test_every_answer_is_lost_once(play: Play, tmp_path: Path) -> None:
    async def story(plane: Plane) -> None:
        plane.world.rewrite(GUEST)
        beside = Beside(plane, tmp_path / "agent")
        beside.start()
        lost = 0

        def lose(answer: PollAnswer) -> None:
            nonlocal lost
            lost += 1
            if lost % 2 and (answer.work or answer.ended or answer.taken):
                raise Temporary("The line is cut.", code="server_unreachable", delay=0.01)

        beside.line.on_answer = lose
        operation = await plane.ended(plane.deploy(egg=EGG))
        assert (operation.status, operation.error) == ("succeeded", None)
        assert operation.fence > 1, "what was claimed in a lost answer is claimed anew"
        assert created(plane) == 1
        assert plane.log("guest") == ["one", "two"]
        await beside.stop()

    play(story)


def test_the_server_is_killed_while_the_agent_works(play: Play, tmp_path: Path) -> None:
    async def story(plane: Plane) -> None:
        plane.world.rewrite({"guests": {"*": {"duration": 0.4, "output": [{"text": "one", "at": 0.3}]}}})
        beside = Beside(plane, tmp_path / "agent")
        beside.start()
        accepted = plane.deploy(egg=EGG)
        await plane.reached(accepted.operation_id, "cloud-init")
        await plane.restart()
        operation = await plane.ended(accepted)
        assert (operation.status, operation.error) == ("succeeded", None)
        assert created(plane) == 1
        assert plane.log("guest") == ["one"]
        await beside.stop()

    play(story)


# ---- who may say what


def test_an_enrolment_token_is_good_once_and_not_for_long(play: Play) -> None:
    async def story(plane: Plane) -> None:
        enrol(plane)
        agents = plane.control.agents
        token = agents.invite(ADMIN, plane.cluster_id).reveal()
        agents.enrol(Enrolment(token=token))
        with pytest.raises(Unauthenticated) as refused:
            agents.enrol(Enrolment(token=token))
        assert refused.value.code == "invalid_enrolment"
        late = agents.invite(ADMIN, plane.cluster_id).reveal()
        with plane.control.database.write() as session:
            session.execute(sa.update(Agent).values(enrolment_expires=clock.later(-1)))
        with pytest.raises(Unauthenticated):
            agents.enrol(Enrolment(token=late))

    play(story)


def test_a_revoked_key_is_refused_with_the_reason(play: Play, tmp_path: Path) -> None:
    async def story(plane: Plane) -> None:
        beside = Beside(plane, tmp_path / "agent")
        beside.start()
        await plane.ended(plane.deploy())
        plane.control.agents.revoke(ADMIN, plane.cluster_id)
        async with asyncio.timeout(5):
            while beside.error is None:
                await asyncio.sleep(0.01)
        assert isinstance(beside.error, IceShelvesError)
        assert beside.error.code == "agent_revoked"

    play(story)


def test_a_key_is_rotated_even_if_the_answer_is_lost(play: Play, tmp_path: Path) -> None:
    async def story(plane: Plane) -> None:
        beside = Beside(plane, tmp_path / "agent")
        first = beside.identity.key
        beside.start()
        lost: list[str] = []

        def lose(answer: PollAnswer) -> None:
            if answer.key is not None and not lost:
                lost.append(answer.key)
                raise Temporary("The line is cut.", code="server_unreachable", delay=0.01)

        beside.line.on_answer = lose
        plane.control.agents.rotate(ADMIN, plane.cluster_id)
        agents = plane.control.agents
        async with asyncio.timeout(5):
            while True:
                try:
                    agents.identify(first)
                except Unauthenticated:
                    break
                await asyncio.sleep(0.01)
        assert lost
        assert (await plane.ended(plane.deploy())).status == "succeeded"
        await beside.stop()

    play(story)


def test_two_agents_with_one_key(play: Play) -> None:
    async def story(plane: Plane) -> None:
        key = enrol(plane)
        await poll_of(plane, key)
        agents = plane.control.agents
        known = agents.identify(key)
        with pytest.raises(Conflict) as refused:
            await agents.poll(known, Poll(spool=OTHER), lambda: False)
        assert refused.value.code == "another_agent"

    play(story)


def _entry(operation: str, fence: int, number: int, text: str = "line") -> Entry:
    return Entry(number, operation, fence, "log", clock.to_text(clock.now()), "create", text=text)


def test_a_stale_fence_is_refused(play: Play) -> None:
    """What a former claim reports changes nothing, and its holder is told to stop."""

    async def story(plane: Plane) -> None:
        key = enrol(plane)
        await poll_of(plane, key)
        accepted = plane.deploy()
        (first,) = (await poll_of(plane, key)).work
        (second,) = (await poll_of(plane, key)).work  # the first answer got lost
        assert (first.fence, second.fence) == (1, 2)
        operation = accepted.operation_id
        ending = End(first.fence, OperationStatus.SUCCEEDED)
        answer = await poll_of(
            plane, key, entries=[_entry(operation, 1, 1)], ends={operation: ending}, wants_work=False
        )
        assert answer.drop == [operation]
        assert answer.ended == {}
        assert plane.log() == []
        assert plane.operation(operation).status == "running"

    play(story)


def test_a_replayed_report_is_written_once(play: Play) -> None:
    async def story(plane: Plane) -> None:
        key = enrol(plane)
        await poll_of(plane, key)
        accepted = plane.deploy()
        (claim,) = (await poll_of(plane, key)).work
        entries = [_entry(accepted.operation_id, claim.fence, number, str(number)) for number in (1, 2)]
        running = {accepted.operation_id: claim.fence}
        for _ in range(3):
            answer = await poll_of(plane, key, entries=entries, running=running, wants_work=False)
            assert answer.taken == 2
        assert plane.log() == ["1", "2"]

    play(story)


def test_another_clusters_key_reaches_nothing(play: Play) -> None:
    async def story(plane: Plane) -> None:
        key = enrol(plane)
        new = NewCluster(name="other", provider="fake", connection_method="agent-poll")
        other = plane.control.clusters.add(ADMIN, new)
        token = plane.control.agents.invite(ADMIN, other).reveal()
        others = plane.control.agents.enrol(Enrolment(token=token)).key
        await poll_of(plane, key)
        operation = plane.deploy().operation_id
        (claim,) = (await poll_of(plane, key)).work
        answer = await poll_of(
            plane,
            others,
            entries=[_entry(operation, claim.fence, 1)],
            ends={operation: End(claim.fence, OperationStatus.SUCCEEDED)},
            running={operation: claim.fence},
        )
        assert (answer.work, answer.drop, answer.ended) == ([], [operation], {})
        assert plane.log() == []
        assert plane.operation(operation).status == "running"

    play(story)


def test_a_poll_that_nobody_awaits_takes_nothing(play: Play) -> None:
    """Its agent has gone and polls anew; what the new poll was given stays its own."""

    async def story(plane: Plane) -> None:
        key = enrol(plane)
        former = asyncio.ensure_future(poll_of(plane, key, hold=5))
        await asyncio.sleep(0.05)
        later = asyncio.ensure_future(poll_of(plane, key, hold=5))
        await asyncio.sleep(0.05)
        assert (await former).work == []
        plane.deploy()
        (claim,) = (await later).work
        assert claim.fence == 1

    play(story)


def test_an_agent_that_lost_its_claim_takes_it_again(play: Play, tmp_path: Path) -> None:
    """Dropped and claimed in one breath: what was cut off begins again, and ends."""

    async def story(plane: Plane) -> None:
        plane.world.rewrite({"guests": {"*": {"duration": 0.3, "output": [{"text": "one", "at": 0.2}]}}})
        beside = Beside(plane, tmp_path / "agent")
        beside.start()
        accepted = plane.deploy()
        await plane.reached(accepted.operation_id, "cloud-init")
        with plane.control.database.write() as session:
            operation = session.get_one(Operation, accepted.operation_id)
            operation.fence += 1
            operation.lease_until = None
        operation = await plane.ended(accepted)
        assert (operation.status, operation.error) == ("succeeded", None)
        assert created(plane) == 1
        await beside.stop()

    play(story)


def test_nothing_of_a_long_log_is_lost(play: Play, tmp_path: Path) -> None:
    """More than one poll can carry; the end does not overtake it."""
    lines = [{"text": f"line {number}"} for number in range(1300)]

    async def story(plane: Plane) -> None:
        plane.world.rewrite({"guests": {"*": {"duration": 0.1, "output": lines}}})
        beside = Beside(plane, tmp_path / "agent")
        beside.start()
        operation = await plane.ended(plane.deploy())
        assert operation.status == "succeeded"
        assert set(plane.steps(operation.id).values()) == {"done"}
        assert plane.log("guest") == [line["text"] for line in lines]
        await beside.stop()

    play(story)


def test_whoever_is_shut_out_gets_no_more_work(play: Play) -> None:
    async def story(plane: Plane) -> None:
        key = enrol(plane)
        held = asyncio.ensure_future(poll_of(plane, key, hold=5))
        await asyncio.sleep(0.05)
        plane.control.agents.revoke(ADMIN, plane.cluster_id)
        with pytest.raises(Unauthenticated) as refused:
            await held
        assert refused.value.code == "agent_revoked"

    play(story)


def test_only_a_poll_for_work_brings_a_new_key(play: Play) -> None:
    """Reports run beside it: two new keys at once would leave the agent with a wrong one."""

    async def story(plane: Plane) -> None:
        key = enrol(plane)
        plane.control.agents.rotate(ADMIN, plane.cluster_id)
        assert (await poll_of(plane, key, wants_work=False)).key is None
        newer = (await poll_of(plane, key)).key
        assert newer is not None
        assert (await poll_of(plane, key, wants_work=False)).key is None
        assert (await poll_of(plane, newer)).key is None

    play(story)


def test_what_a_former_claim_made_may_be_there(play: Play) -> None:
    async def story(plane: Plane) -> None:
        key = enrol(plane)
        plane.deploy()
        (first,) = (await poll_of(plane, key)).work
        (second,) = (await poll_of(plane, key)).work
        assert (first.touched, second.touched) == (False, True)

    play(story)


def test_an_agent_that_is_too_old_says_so(
    play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim_of = claims._claim

    def newer(*arguments: Any) -> claims.Claim:
        claim = claim_of(*arguments)
        claim.spec["tomorrow"] = True
        return claim

    monkeypatch.setattr(claims, "_claim", newer)

    async def story(plane: Plane) -> None:
        beside = Beside(plane, tmp_path / "agent")
        beside.start()
        operation = await plane.ended(plane.deploy())
        assert operation.error is not None
        assert (operation.status, operation.error["code"]) == ("failed", "agent_too_old")
        await beside.stop()

    play(story)


def test_a_lost_key_of_one_revision_holds_nothing_else_up(play: Play) -> None:
    async def story(plane: Plane) -> None:
        key = enrol(plane)
        lost, good = plane.deploy("lost"), plane.deploy("good", egg=make_egg(name="other"))
        with plane.control.database.write() as session:
            session.execute(
                sa.update(Revision).where(Revision.deployment_id == lost.deployment_id).values(spec=b"x")
            )
        work = (await poll_of(plane, key)).work
        assert [claim.operation for claim in work] == [good.operation_id]
        error = plane.operation(lost.operation_id).error
        assert error is not None
        assert error["code"] == "undecryptable"

    play(story)


def test_an_older_copy_of_the_record_uses_no_number_again(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "agent.db")
    disk.tell([_entry(SPOOL, 1, 1, "a"), _entry(SPOOL, 1, 1, "b")])
    assert [entry.number for entry in disk.untold(9, 9999)] == [1, 2]
    disk.go_on_after(7)
    assert [(entry.number, entry.text) for entry in disk.untold(9, 9999)] == [(8, "a"), (9, "b")]
    disk.go_on_after(8)
    assert [entry.text for entry in disk.untold(9, 9999)] == ["b"]
    assert {file.stat().st_mode & 0o777 for file in tmp_path.glob("agent.db*")} == {0o600}


def test_what_the_agent_says_of_its_hypervisor_is_the_clusters_health(play: Play, tmp_path: Path) -> None:
    async def story(plane: Plane) -> None:
        beside = Beside(plane, tmp_path / "agent")
        beside.start()
        await plane.ended(plane.deploy())
        async with asyncio.timeout(5):
            while True:
                with plane.control.database.read() as session:
                    cluster = session.get_one(Cluster, plane.cluster_id)
                if cluster.status == "active":
                    break
                await asyncio.sleep(0.01)
        assert cluster.server_info["family"] == "fake"
        await beside.stop()

    play(story)
