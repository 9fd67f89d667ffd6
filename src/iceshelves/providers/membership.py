"""Which member of a cluster can take an instance, and the refusals that all families share."""

from __future__ import annotations

from collections.abc import Sequence

from iceshelves.core.errors import Conflict, InvalidInput, NotFound, Unsupported
from iceshelves.providers.base import Member


def takes_instances(member: Member) -> bool:
    """Whether an instance that is meant for ``member`` can be created there now."""
    return member.online and not member.evacuated


def check_takes_instances(name: str, members: Sequence[Member]) -> None:
    """Raise unless the member called ``name`` is there and takes instances.

    :class:`InvalidInput` ``member_not_found``, :class:`Conflict` ``member_offline`` or ``member_evacuated``.
    """
    member = next((member for member in members if member.name == name), None)
    if member is None:
        raise InvalidInput(
            f"The cluster has no member {name!r}.", code="member_not_found", hint=f"It has {told(members)}."
        )
    if not member.online:
        raise member_offline(member, members)
    if member.evacuated:
        raise Conflict(
            f"The member {name!r} is evacuated.",
            code="member_evacuated",
            hint=f"Restore it first, or choose another one: {told(members)}.",
        )


def member_named(name: str, members: Sequence[Member]) -> Member:
    """The member that is asked for.  Raises :class:`NotFound` ``member_not_found``."""
    for member in members:
        if member.name == name:
            return member
    raise NotFound(
        f"The cluster has no member {name!r}.", code="member_not_found", hint=f"It has {told(members)}."
    )


def member_offline(member: Member, members: Sequence[Member]) -> Conflict:
    """Something is wanted of a member that is away."""
    why = f": {member.message}" if member.message else ""
    return Conflict(
        f"The member {member.name!r} is {member.status.lower()}{why}",
        code="member_offline",
        hint=f"Bring it back, or choose another one: {told(members)}.",
    )


def not_a_cluster(name: str) -> Unsupported:
    """A single server has nowhere to move its instances to."""
    return Unsupported(
        f"{name} is a single server: there is no other member to move its instances to.",
        code="not_a_cluster",
        hint="Stop or move its instances by hand.",
    )


def told(members: Sequence[Member]) -> str:
    """The members and their states for people: ``m1 (online), m2 (offline)``."""
    return ", ".join(f"{member.name} ({member.status.lower()})" for member in members) or "none"
