"""Evacuating and restoring members: done once, told to whoever asks, and it outlives the asker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from iceshelves.clusters import members
from iceshelves.core.errors import Conflict, NotFound, Temporary, TimedOut, Unsupported
from iceshelves.store.models import AuditEntry

from .conftest import ADMIN, Plane, Story

Play = Callable[[Story], None]
THREE: dict[str, Any] = {"members": {"m1": {}, "m2": {}, "m3": {"online": False}}}


def calls(plane: Plane, action: str) -> int:
    return sum(call.action == action for call in plane.world.calls)


def test_there_and_back_again(play: Play) -> None:
    async def story(plane: Plane) -> None:
        plane.world.rewrite(THREE)
        await plane.ended(plane.deploy(target_member="m1"))
        change = plane.control.members.change
        away = await change(ADMIN, plane.cluster_id, "m1", "evacuate", "request-1")
        assert (away.status, away.evacuated) == ("Evacuated", True)
        assert plane.world.state.instances["web"].member == "m2"
        assert away.capacity is not None
        assert away.capacity.instances == 0
        back = await change(ADMIN, plane.cluster_id, "m1", "restore")
        assert (back.status, back.evacuated) == ("Online", False)
        assert plane.world.state.instances["web"].member == "m1"
        with plane.control.database.read() as session:
            query = (
                sa.select(AuditEntry).where(AuditEntry.action.startswith("member.")).order_by(AuditEntry.id)
            )
            entries = session.execute(query).scalars().all()
        assert [(entry.action, entry.object, entry.actor) for entry in entries] == [
            ("member.evacuate", "local/m1", "admin"),
            ("member.restore", "local/m1", "admin"),
        ]
        assert entries[0].request_id == "request-1"

    play(story)


def test_whoever_asks_for_the_same_at_once_shares_it_and_others_are_refused(play: Play) -> None:
    async def story(plane: Plane) -> None:
        plane.world.rewrite({**THREE, "delays": {"evacuate": 0.3}})
        change = plane.control.members.change
        asked = [asyncio.create_task(change(ADMIN, plane.cluster_id, "m1", "evacuate")) for _ in range(2)]
        async with asyncio.timeout(5):
            while not calls(plane, "evacuate"):
                await asyncio.sleep(0.01)
        with pytest.raises(Conflict) as refused:
            await change(ADMIN, plane.cluster_id, "m1", "restore")
        assert refused.value.code == "member_busy"
        done = await asyncio.gather(*asked)
        assert calls(plane, "evacuate") == 1
        assert [one.status for one in done] == ["Evacuated", "Evacuated"]

    play(story)


def test_it_goes_on_when_nobody_waits_for_it(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "PATIENCE", 0.05)

    async def story(plane: Plane) -> None:
        plane.world.rewrite({**THREE, "delays": {"evacuate": 0.3}})
        change = plane.control.members.change
        with pytest.raises(TimedOut) as caught:
            await change(ADMIN, plane.cluster_id, "m1", "evacuate")
        assert caught.value.code == "member_change_goes_on"
        leaver = asyncio.create_task(change(ADMIN, plane.cluster_id, "m1", "evacuate"))
        await asyncio.sleep(0.02)
        leaver.cancel()
        await asyncio.sleep(0.4)
        assert (await change(ADMIN, plane.cluster_id, "m1", "evacuate")).evacuated
        assert calls(plane, "evacuate") == 2  # the last one found it done

    play(story)


@pytest.mark.parametrize(
    ("script", "member", "kind", "code"),
    [
        (THREE, "m9", NotFound, "member_not_found"),
        (THREE, "m3", Conflict, "member_offline"),
        ({**THREE, "faults": [{"action": "evacuate"}]}, "m1", Temporary, "hypervisor_unreachable"),
        ({**THREE, "faults": [{"action": "members"}]}, "m1", Temporary, "hypervisor_unreachable"),
    ],
)
def test_why_it_cannot_be_done(
    play: Play, script: dict[str, Any], member: str, kind: type[Exception], code: str
) -> None:
    async def story(plane: Plane) -> None:
        plane.world.rewrite(script)
        change = plane.control.members.change
        with pytest.raises(kind) as caught:
            await change(ADMIN, plane.cluster_id, member, "evacuate")
        assert getattr(caught.value, "code", "") == code
        plane.world.rewrite(THREE)
        assert (await change(ADMIN, plane.cluster_id, "m1", "evacuate")).evacuated  # nothing is stuck

    play(story)


def test_a_single_server_has_one_member_and_keeps_it(play: Play) -> None:
    async def story(plane: Plane) -> None:
        (only,) = await plane.control.members.list(ADMIN, plane.cluster_id)
        assert only.online
        assert only.capacity is not None
        with pytest.raises(Unsupported) as caught:
            await plane.control.members.change(ADMIN, plane.cluster_id, only.name, "evacuate")
        assert caught.value.code == "not_a_cluster"

    play(story)


def test_anothers_cluster_is_none(play: Play) -> None:
    async def story(plane: Plane) -> None:
        stranger = replace(ADMIN, tenant_id=2)
        with pytest.raises(NotFound):
            await plane.control.members.list(stranger, plane.cluster_id)
        with pytest.raises(NotFound):
            await plane.control.members.change(stranger, plane.cluster_id, "m1", "evacuate")

    play(story)
