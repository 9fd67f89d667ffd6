"""Every operation ends, whatever breaks; and what it says of its end is true."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from iceshelves.core.errors import Conflict, NotFound
from iceshelves.deploy import records, steps
from iceshelves.deploy.requests import UpdateRequest
from iceshelves.deploy.work import Work
from iceshelves.operations import rows
from iceshelves.store.models import Operation, Revision

from .conftest import ADMIN, MemoryEngine, Plane, Story, make_egg

Play = Callable[[Story], None]
FAILING = {"guests": {"*": {"result": "error", "errors": ["boom"]}}}


async def _broken(_work: Work) -> dict[str, Any]:
    raise ZeroDivisionError("a bug")


def _operations(plane: Plane) -> list[Operation]:
    with plane.control.database.read() as session:
        return list(session.execute(sa.select(Operation).order_by(Operation.created_on)).scalars())


def test_a_bug_in_a_step_ends_the_operation_and_what_it_made_is_removed(
    play: Play, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(steps.STEPS, "start", _broken)

    async def story(plane: Plane) -> None:
        operation = await plane.ended(plane.deploy(on_failure="cleanup"))
        assert operation.status == "failed"
        assert operation.error is not None
        assert operation.error["code"] == "internal_error"
        assert operation.id in operation.error["message"]
        assert "a bug" not in str(operation.error)
        assert plane.steps(operation.id)["start"] == "failed"
        assert plane.world.state.instances == {}

    play(story)
    assert "ZeroDivisionError: a bug" in caplog.text


def test_a_bug_in_the_clean_up_ends_the_operation(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(steps.STEPS, "remove", _broken)

    async def story(plane: Plane) -> None:
        plane.world.rewrite(FAILING)
        operation = await plane.ended(plane.deploy(on_failure="cleanup"))
        assert (operation.status, plane.steps(operation.id)["clean-up"]) == ("failed", "failed")
        assert plane.deployment().living

    play(story)


def test_what_cannot_be_read_ends_too(plane: Plane, play: Play) -> None:
    accepted = plane.deploy()
    with plane.control.database.write() as session:
        session.execute(sa.update(Revision).values(spec=b"not ours at all"))

    async def story(plane: Plane) -> None:
        operation = await plane.ended(accepted)
        assert operation.error is not None
        assert (operation.status, operation.error["code"]) == ("failed", "undecryptable")
        assert plane.deployment().status == "failed"
        assert set(plane.steps(operation.id).values()) == {"skipped"}

    play(story)


def test_what_the_engine_did_not_take_is_handed_over_again(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(_engine: MemoryEngine, _operation_id: str) -> None:
        raise OSError("no")

    async def story(plane: Plane) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(MemoryEngine, "submit", refuse)
            accepted = plane.deploy()
            await asyncio.sleep(0.05)
        assert plane.operation(accepted.operation_id).status == "pending"
        await plane.control._look_after(0.0)
        assert (await plane.ended(accepted)).status == "succeeded"

    play(story)


def test_an_operation_whose_workflow_is_dead_ends(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    async def dead(_engine: MemoryEngine, operation_ids: list[str]) -> dict[str, bool]:
        return dict.fromkeys(operation_ids, False)

    async def story(plane: Plane) -> None:
        plane.world.rewrite({"guests": {"*": {"result": "never"}}})
        accepted = plane.deploy()
        await plane.reached(accepted.operation_id, "cloud-init")
        monkeypatch.setattr(MemoryEngine, "known", dead)
        await plane.control._look_after(3600.0)  # too young to be looked at
        assert plane.operation(accepted.operation_id).status == "running"
        await plane.control._look_after(0.0)
        operation = plane.operation(accepted.operation_id)
        assert operation.error is not None
        assert (operation.status, operation.error["code"]) == ("failed", "operation_abandoned")
        assert plane.steps(operation.id)["cloud-init"] == "failed"
        # and it does nothing more, should its workflow come back
        with pytest.raises(Conflict, match="ended already"), plane.control.database.write() as session:
            rows.begin_step(session, operation.id, "checks")
        plane.world.rewrite({})
        assert plane.deployment().living

    play(story)


def test_cancelled_between_the_last_step_and_the_end(play: Play) -> None:
    async def story(plane: Plane) -> None:
        def cancel(moment: str) -> None:
            if moment == "before end":
                with plane.control.database.read() as session:
                    operation_id = session.execute(sa.select(Operation.id)).scalar_one()
                plane.control.cancel(ADMIN, operation_id)

        plane.hook = cancel
        operation = await plane.ended(plane.deploy())
        assert operation.status == "cancelled"
        assert plane.world.state.instances == {}
        assert (plane.deployment().status, plane.deployment().living) == ("cancelled", False)

    play(story)


def test_a_retry_that_is_cancelled_before_it_began_leaves_what_was_kept(play: Play) -> None:
    async def story(plane: Plane) -> None:
        plane.limit_cluster(1)
        plane.world.rewrite(FAILING)
        await plane.ended(plane.deploy("kept"))
        plane.world.rewrite({"guests": {"other": {"result": "never"}}})
        other = plane.deploy("other", egg_id=1)
        await plane.reached(other.operation_id, "cloud-init")
        retry = plane.control.deployments.retry(ADMIN, 1)
        plane.control.cancel(ADMIN, retry.operation_id)
        assert (await plane.ended(retry)).status == "cancelled"
        assert "kept" in plane.world.state.instances
        assert plane.deployment(1).living

    play(story)


def test_an_update_of_what_was_cleaned_up_takes_the_name_back(play: Play) -> None:
    async def story(plane: Plane) -> None:
        plane.world.rewrite(FAILING)
        await plane.ended(plane.deploy(on_failure="cleanup"))
        assert not plane.deployment(1).living
        accepted = plane.control.deployments.update(ADMIN, 1, UpdateRequest(on_failure="cleanup"))
        with pytest.raises(Conflict, match="called 'web'"):
            plane.deploy(egg_id=1)
        # there is nothing good to go back to, so this one is cleaned up as well
        await plane.ended(accepted)
        assert plane.world.state.instances == {}
        plane.world.rewrite({})
        await plane.ended(plane.deploy(egg_id=1))
        for change in (
            lambda: plane.control.deployments.update(ADMIN, 1, UpdateRequest()),
            lambda: plane.control.deployments.retry(ADMIN, 1),
        ):
            with pytest.raises(Conflict) as taken:
                change()
            assert taken.value.code == "deployment_exists"

    play(story)


def test_the_record_of_a_deployment_outlives_its_cluster_and_can_be_deleted(play: Play) -> None:
    async def story(plane: Plane) -> None:
        plane.world.rewrite(FAILING)
        await plane.ended(plane.deploy(on_failure="cleanup"))
        plane.control.clusters.delete(ADMIN, plane.cluster_id)
        with pytest.raises(NotFound, match="cluster"):
            plane.control.deployments.retry(ADMIN, 1)
        asked = _of_instances(plane)
        operation = await plane.ended(plane.control.deployments.delete(ADMIN, 1))
        assert operation.status == "succeeded"
        assert plane.deployment().status == "deleted"
        assert _of_instances(plane) == asked

    def _of_instances(plane: Plane) -> int:
        """How often an instance was asked about; a last look at the cluster's health may come in between."""
        return sum(1 for call in plane.world.calls if call.instance)

    play(story)


def test_a_roll_back_follows_once_and_never_overrules_somebody(play: Play) -> None:
    async def story(plane: Plane) -> None:
        await plane.ended(plane.deploy())
        bad = plane.add_egg(make_egg(version="2.0.0"))
        plane.world.rewrite({"guests": {"plain@2.*": {"result": "error", "errors": ["boom"]}}})
        request = UpdateRequest(egg_id=bad, on_failure="cleanup")
        failed = await plane.ended(plane.control.deployments.update(ADMIN, 1, request))
        async with asyncio.timeout(10):
            while plane.deployment().status != "completed":
                await asyncio.sleep(0.01)
        with plane.control.database.read() as session:
            job = records.load(session, plane.control.cipher, failed.id)
        plane.control.deployments.follow_up(job)
        assert len(_operations(plane)) == 3
        # as if the process had died before the roll-back was written, and somebody had been faster
        job = dataclasses.replace(job, operation_id=str(uuid.uuid4()))
        with pytest.raises(Conflict, match="changed by somebody else"):
            plane.control.deployments.follow_up(job)

    play(story)


def test_the_limit_of_a_cluster_may_change(play: Play) -> None:
    async def story(plane: Plane) -> None:
        plane.limit_cluster(1)
        plane.world.rewrite({"guests": {"*": {"result": "never"}}})
        first = plane.deploy("first")
        await plane.reached(first.operation_id, "cloud-init")
        plane.limit_cluster(2)
        second = plane.deploy("second", egg_id=1)
        await plane.reached(second.operation_id, "cloud-init")

    play(story)
