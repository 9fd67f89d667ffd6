"""Which member of a cluster a new instance goes to: the one that was named, or where most room is.

The choice is made once, in the step that validates, and kept as a durable fact; nothing else decides it, so
a deployment that was cut off goes on where it began and never begins a second time elsewhere.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from iceshelves.core.errors import Conflict, Failed, IceShelvesError, Temporary
from iceshelves.deploy.plans import Plan, Plans, memory_of
from iceshelves.deploy.work import Work
from iceshelves.providers.base import Capacity, Member, Placement, Volumes, require
from iceshelves.providers.membership import (
    check_takes_instances,
    member_offline,
    takes_instances,
    told,
)

#: instead of a member's name: the one with most room
AUTO: Final = "auto"
#: members whose free memory differs by less than this part of the largest's memory have as much room
_NEARLY: Final = 0.05
#: seconds for the look at the members that explains a failure
_LOOK_SECONDS: Final = 5.0
_Facts = TypeVar("_Facts")


async def choose_member(work: Work) -> str | None:
    """The member for a new instance; ``None`` where there is nothing to choose.

    Raises :class:`InvalidInput` ``member_not_found``, and :class:`Conflict` ``member_offline``,
    ``member_evacuated`` or ``no_member_available``, each telling the members and their states.
    """
    wanted = work.spec.member if work.spec.member != AUTO else None
    if wanted is None and work.provider.offers(Placement) is None:
        return None
    placement = require(work.provider, Placement)
    members = await placement.members()
    if wanted is None and work.spec.volumes and len(members) > 1:
        # what a former try kept on a member's own disk is only of use there
        wanted = await require(work.provider, Volumes).member(work.mark)
    if wanted is not None:
        check_takes_instances(wanted, members)
    if len(members) == 1:
        return None
    chosen = wanted or roomiest(await placement.survey(), work.plans)
    work.plans.put(work.mark.operation, Plan(chosen, memory_of(work.spec.config), instances=1))
    return chosen


def on_member(step: Callable[[Work], Awaitable[_Facts]]) -> Callable[[Work], Awaitable[_Facts]]:
    """Have ``step`` tell of a member that is away by its name, and wait for it as for anything that is away.

    The hypervisor itself only tells of a connection that it has lost, or of one that it cannot make.
    """

    @functools.wraps(step)
    async def told_by_name(work: Work) -> _Facts:
        try:
            return await step(work)
        except (Temporary, Failed) as error:
            if work.member is None or not (isinstance(error, Temporary) or error.code == "hypervisor_failed"):
                raise
            raise await _named(work.member, work, error) from error

    return told_by_name


async def _named(name: str, work: Work, error: IceShelvesError) -> IceShelvesError:
    """``error``, or that the member ``name`` is offline."""
    try:
        async with asyncio.timeout(_LOOK_SECONDS):
            members = await require(work.provider, Placement).members()
    except (IceShelvesError, TimeoutError):
        return error  # the whole cluster is away
    member = next((member for member in members if member.name == name), None)
    if member is None or member.online:
        return error
    away = member_offline(member, members)
    return Temporary(away.message, code=away.code, hint=away.hint, details={"told": error.message}, delay=2.0)


def roomiest(members: Sequence[Member], plans: Plans) -> str:
    """The member with most free memory after what is planned there; of nearly equal ones that with the
    fewest instances.  One whose capacity is not known is only taken where none is known.

    Raises :class:`Conflict` ``no_member_available``.
    """
    able = [member for member in members if takes_instances(member) and member.automatic]
    if not able:
        raise Conflict(
            "No member of the cluster takes instances just now.",
            code="no_member_available",
            hint=f"Bring one back, or name one that is only taken by name: {told(members)}.",
        )
    rooms = [_Room.of(member, member.capacity, plans) for member in able if member.capacity is not None]
    if not rooms:
        return min(able, key=lambda member: (len(plans.of(member.name)), member.name)).name
    most = max(rooms, key=lambda room: room.free)
    equal = [room for room in rooms if room.free >= most.free - _NEARLY * most.memory]
    return min(equal, key=lambda room: (room.instances, -room.free, room.name)).name


@dataclass(frozen=True, slots=True)
class _Room:
    name: str
    memory: int
    free: int
    instances: int

    @classmethod
    def of(cls, member: Member, capacity: Capacity, plans: Plans) -> _Room:
        planned = plans.of(member.name)
        return cls(
            member.name,
            capacity.memory,
            capacity.memory - capacity.memory_used - sum(plan.memory for plan in planned),
            (capacity.instances or 0) + sum(plan.instances for plan in planned),
        )
