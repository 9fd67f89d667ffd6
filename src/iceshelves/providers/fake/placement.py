"""Members of a fake world; one whose script names none is a single server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from iceshelves.core.errors import Temporary
from iceshelves.core.units import parse_size
from iceshelves.providers.base import Capacity, Member, Progress, no_progress
from iceshelves.providers.fake.script import MemberScript
from iceshelves.providers.fake.world import FakeInstance, FakeWorld
from iceshelves.providers.membership import (
    member_named,
    member_offline,
    not_a_cluster,
    takes_instances,
)


class FakePlacement:
    """The :class:`~iceshelves.providers.base.Placement` of the fake."""

    def __init__(self, world: FakeWorld) -> None:
        self._world = world

    async def members(self) -> Sequence[Member]:
        async with self._world.call("members"):
            return members_of(self._world)

    async def survey(self) -> Sequence[Member]:
        async with self._world.call("survey"):
            return [
                replace(member, capacity=_capacity(self._world, member)) for member in members_of(self._world)
            ]

    async def evacuate(self, member: str, progress: Progress = no_progress) -> None:
        async with self._world.call("evacuate", member):
            await self._world.settle(member)
            if self._found(member).evacuated:
                return
            leaving = [found for found in self._world.state.instances.values() if found.member == member]
            self._world.state.evacuated[member] = {i.name: i.power == "running" for i in leaving}
            for number, instance in enumerate(leaving):
                progress(number / len(leaving), f"Migrating {instance.name}")
                self._move_away(instance)
            await self._world.work("evacuate", member)

    async def restore(self, member: str, progress: Progress = no_progress) -> None:
        async with self._world.call("restore", member):
            await self._world.settle(member)
            if not self._found(member).evacuated:
                return
            for name, ran in self._world.state.evacuated.pop(member).items():
                if (instance := self._world.state.instances.get(name)) is not None:
                    progress(None, f"Migrating {name}")
                    instance.member = member
                    if ran and instance.power != "running":
                        self._world.switch_on(instance)
            await self._world.work("restore", member)

    def _found(self, name: str) -> Member:
        if not self._world.script.members:
            raise not_a_cluster(self._world.name)
        members = members_of(self._world)
        found = member_named(name, members)
        if not found.online:
            raise member_offline(found, members)
        return found

    def _move_away(self, instance: FakeInstance) -> None:
        """To the next member that takes it; where there is none it is stopped."""
        others = [
            member.name
            for member in members_of(self._world)
            if member.name != instance.member and takes_instances(member)
        ]
        if others:
            instance.member = others[0]
        else:
            instance.power = "stopped"


def members_of(world: FakeWorld) -> Sequence[Member]:
    """The members as they are now, without what each has."""
    told = world.script.members
    if not told:
        return [Member(world.name, online=True, status="Online")]
    return [_member(world, name, member) for name, member in told.items()]


def member_for(world: FakeWorld, wanted: str | None) -> str | None:
    """Where a new instance goes: ``wanted``, or the first member; nowhere in particular on a single server.

    Raises :class:`Temporary` where that member does not answer, as a hypervisor does before it counts it as
    offline.
    """
    if not world.script.members:
        return None
    name = wanted or next(iter(world.script.members))
    if not member_named(name, members_of(world)).online:
        raise Temporary(f"The member {name} does not answer.", code="hypervisor_busy", delay=0.01)
    return name


def _member(world: FakeWorld, name: str, script: MemberScript) -> Member:
    evacuated = name in world.state.evacuated
    status = "Offline" if not script.online else "Evacuated" if evacuated else "Online"
    return Member(
        name,
        script.online,
        status,
        script.message,
        roles=script.roles,
        evacuated=evacuated,
        automatic=script.automatic,
    )


def _capacity(world: FakeWorld, member: Member) -> Capacity | None:
    script = world.script.members.get(member.name, MemberScript())
    if not member.online or script.silent:
        return None
    here = [found for found in world.state.instances.values() if found.member in (None, member.name)]
    return Capacity(
        cpus=script.cpus,
        memory=parse_size(script.memory),
        memory_used=parse_size(script.memory_used),
        instances=len(here),
    )
