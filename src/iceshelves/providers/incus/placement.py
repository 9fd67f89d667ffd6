"""Members of a cluster; a single server is a cluster of one."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

from iceshelves.core.errors import IceShelvesError, Temporary
from iceshelves.providers.base import Capacity, Member, Progress, no_progress
from iceshelves.providers.incus import errors
from iceshelves.providers.incus.client import Call, Client, path
from iceshelves.providers.incus.operations import Operations
from iceshelves.providers.incus.server import Server
from iceshelves.providers.membership import member_named, member_offline, not_a_cluster

#: seconds for which a member may think about its capacity; the others are not kept waiting
SURVEY_DEADLINE: Final = 3.0
#: seconds for a member that passes for offline to prove that it is not
ASK_DEADLINE: Final = 2.0
#: how the daemons tell of one that was lost within the last minute
_LATELY: Final = re.compile(r"No heartbeat for \d+(?:\.\d+)?s\b")
#: states (doc/explanation/clustering) in which a member answers
_ONLINE: Final = frozenset({"Online", "Evacuated"})
_EVACUATED: Final = "Evacuated"
#: what ``scheduler.instance`` may be where the hypervisor itself chooses the member
_AUTOMATIC: Final = frozenset({"", "all"})

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class IncusPlacement:
    """The :class:`~iceshelves.providers.base.Placement` of Incus and LXD."""

    def __init__(self, client: Client, operations: Operations, server: Server) -> None:
        self._client = client
        self._operations = operations
        self._server = server
        #: those that were when their state could be seen last
        self._evacuated: set[str] = set()

    async def members(self) -> Sequence[Member]:
        if not await self._clustered():
            return [Member((await self._server.info()).name, online=True, status="Online")]
        listed = [_member(raw) for raw in await self._client.get_objects(path("cluster", "members"))]
        members = await asyncio.gather(*(self._second_opinion(member) for member in listed))
        if not any(member.online for member in members):
            raise Temporary(
                "The members of the cluster have no word of each other.",
                code="cluster_unsettled",
                hint="More than half of them have to be there; then it takes some seconds to begin anew.",
                delay=2.0,
            )
        return members

    async def _second_opinion(self, member: Member) -> Member:
        """``member``, but online if it answers though it is said to be offline.

        While Incus 6.0's leader waits for one that has died, for half a minute, it writes down the heartbeats
        of nobody; all the others then pass for offline as well.
        """
        if member.online:
            (self._evacuated.add if member.evacuated else self._evacuated.discard)(member.name)
            return member
        if not _LATELY.match(member.message):
            return member
        asked = self._client.get_object("/1.0", target=member.name)
        if await _in_time(asked, f"whether member {member.name} lives", ASK_DEADLINE) is None:
            return member
        return replace(member, online=True, evacuated=member.name in self._evacuated)

    async def survey(self) -> Sequence[Member]:
        members = await self.members()
        counting = asyncio.ensure_future(
            _in_time(self._count_instances(), "the number of instances", SURVEY_DEADLINE)
        )
        capacities = await asyncio.gather(
            *(
                _in_time(
                    self._capacity(member.name), f"the capacity of member {member.name}", SURVEY_DEADLINE
                )
                for member in members
                if member.online
            )
        )
        counts = await counting
        known = dict(zip((member.name for member in members if member.online), capacities, strict=True))
        return [
            replace(member, capacity=_with_instances(known.get(member.name), member.name, counts))
            for member in members
        ]

    async def evacuate(self, member: str, progress: Progress = no_progress) -> None:
        if not (await self._found(member)).evacuated:
            await self._change_state(member, "evacuate", progress)

    async def restore(self, member: str, progress: Progress = no_progress) -> None:
        if (await self._found(member)).evacuated:
            await self._change_state(member, "restore", progress)

    async def _clustered(self) -> bool:
        """A cluster stays one, but a single server can become one at any time."""
        return (await self._server.info()).clustered or (await self._server.probe()).clustered

    async def _found(self, name: str) -> Member:
        if not await self._clustered():
            raise not_a_cluster((await self._server.info()).name)
        members = await self.members()
        found = member_named(name, members)
        if not found.online:
            raise member_offline(found, members)
        return found

    async def _change_state(self, name: str, action: str, progress: Progress) -> None:
        """Each instance goes the way that its own ``cluster.evacuate`` says."""
        body = {"action": action, "mode": ""}
        call = Call("POST", path("cluster", "members", name, "state"), body)
        try:
            await self._operations.run(call, progress)
        except IceShelvesError:
            # Somebody else may have asked for the same at the same time.
            if (await self._found(name)).evacuated != (action == "evacuate"):
                raise

    async def _capacity(self, name: str) -> Capacity:
        """What the member ``name`` says of itself."""
        target = {"target": name} if (await self._server.info()).clustered else {}
        resources, storage = await asyncio.gather(
            self._client.get_object(path("resources"), **target), self._storage(target)
        )
        return _capacity(self._client.where, resources, storage)

    async def _storage(self, target: Mapping[str, str]) -> tuple[int, int] | None:
        """Bytes there are and bytes in use, of all pools; remote pools are counted at every member."""
        names = [raw.get("name") for raw in await self._client.get_objects(path("storage-pools"))]
        read = [
            self._client.get_object(path("storage-pools", str(name), "resources"), **target) for name in names
        ]
        spaces = [found.get("space") or {} for found in await asyncio.gather(*read)]
        if not spaces:
            return None
        return sum(_count(space, "total") for space in spaces), sum(_count(space, "used") for space in spaces)

    async def _count_instances(self) -> Mapping[str, int]:
        """How many instances are on each member.  The list is the only place that says where they are."""
        found = await self._client.get_objects(path("instances"), **{"all-projects": "true"})
        return Counter(str(raw.get("location", "")) for raw in found)


async def _in_time(answer: Awaitable[_T], what: str, seconds: float) -> _T | None:
    """What somebody answers, if it comes soon enough to be of use."""
    try:
        async with asyncio.timeout(seconds):
            return await answer
    except TimeoutError:
        _log.info("%s is not known: no answer in %.0f s", what, seconds)
    except IceShelvesError as error:
        _log.info("%s is not known: %s", what, error.message)
    return None


def _member(raw: Mapping[str, Any]) -> Member:
    status = str(raw.get("status", ""))
    scheduler = (raw.get("config") or {}).get("scheduler.instance", "")
    return Member(
        name=str(raw.get("server_name", "")),
        online=status in _ONLINE,
        status=status,
        message=str(raw.get("message", "")),
        roles=tuple(str(role) for role in raw.get("roles") or ()),
        evacuated=status == _EVACUATED,
        automatic=scheduler in _AUTOMATIC,
    )


def _capacity(where: str, raw: Mapping[str, Any], storage: tuple[int, int] | None) -> Capacity:
    cpu, memory = raw.get("cpu"), raw.get("memory")
    if not isinstance(cpu, dict) or not isinstance(memory, dict):
        raise errors.bad_answer(where, "resources without cpu or memory")
    return Capacity(
        cpus=_count(cpu, "total"),
        memory=_count(memory, "total"),
        memory_used=_count(memory, "used"),
        storage=storage[0] if storage else None,
        storage_used=storage[1] if storage else None,
    )


def _count(values: Mapping[str, Any], name: str) -> int:
    value = values.get(name)
    return value if isinstance(value, int) else 0


def _with_instances(
    capacity: Capacity | None, member: str, counts: Mapping[str, int] | None
) -> Capacity | None:
    if capacity is None or counts is None:
        return capacity
    # a single server says "none" where a cluster names the member
    return replace(capacity, instances=counts.get(member, 0) + counts.get("none", 0))
