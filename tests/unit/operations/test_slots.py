"""Who waits for whom."""

from __future__ import annotations

import asyncio

from iceshelves.operations.slots import Slots, Wanted


async def _run(slots: Slots, name: str, wanted: Wanted, done: list[str], cancel: asyncio.Event) -> None:
    async with slots.of(wanted, cancel):
        await asyncio.sleep(0.01)
        done.append(name)


def test_first_come_first_served_but_what_has_begun_goes_ahead() -> None:
    async def story() -> list[str]:
        slots, done, never = Slots(), list[str](), asyncio.Event()
        await asyncio.gather(
            _run(slots, "first", Wanted(1, 1), done, never),
            _run(slots, "second", Wanted(1, 1), done, never),
            _run(slots, "third", Wanted(1, 1), done, never),
            _run(slots, "begun", Wanted(1, 1, begun=True), done, never),
            _run(slots, "elsewhere", Wanted(2, 1), done, never),
        )
        return done

    done = asyncio.run(story())
    assert [name for name in done if name != "elsewhere"] == ["first", "begun", "second", "third"]
    assert done.index("elsewhere") < 2


def test_who_is_cancelled_waits_no_longer_and_leaves_the_turn_to_others() -> None:
    async def story() -> list[str]:
        slots, done, never, cancel = Slots(), list[str](), asyncio.Event(), asyncio.Event()
        async with slots.of(Wanted(1, 1), never):
            waiting = asyncio.create_task(_run(slots, "cancelled", Wanted(1, 1), done, cancel))
            killed = asyncio.create_task(_run(slots, "killed", Wanted(1, 1), done, never))
            later = asyncio.create_task(_run(slots, "later", Wanted(1, 1), done, never))
            await asyncio.sleep(0)
            killed.cancel()
            cancel.set()
            await waiting
        await later
        async with asyncio.timeout(1), slots.of(Wanted(1, 1), never):
            return done

    assert asyncio.run(story()) == ["cancelled", "later"]
