"""What is ours to change: the rules on marks, and the refusals, that all families share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from iceshelves.core.errors import Conflict, InvalidInput, NotFound
from iceshelves.providers.base import Mark

#: keys that the hypervisor or we write; never part of a specification
RESERVED_KEYS: Final = ("volatile.", "image.", "user.iceshelves.")


def same_deployment(ours: Mark, found: Mark | None) -> bool:
    """Whether ``found`` is a mark of the same deployment of the same installation."""
    return (
        found is not None and found.installation == ours.installation and found.deployment == ours.deployment
    )


def same_operation(ours: Mark, found: Mark | None) -> bool:
    """Whether ``found`` was made by the same operation of the same deployment."""
    return found is not None and same_deployment(ours, found) and found.operation == ours.operation


def check_config(config: Mapping[str, str]) -> None:
    """Raise :class:`InvalidInput` ``reserved_key`` if ``config`` sets a key that is not a user's to set."""
    for key in config:
        if key.startswith(RESERVED_KEYS):
            raise InvalidInput(
                f"The configuration key {key!r} cannot be set.",
                code="reserved_key",
                hint=f"{', '.join(RESERVED_KEYS)} are written by the hypervisor or by us.",
            )


def not_ours(what: str) -> Conflict:
    """``what`` (an instance, a volume) was made by another deployment, or by nobody of us."""
    return Conflict(
        f"The {what} does not belong to this deployment.", code="not_ours", hint="It was left as it is."
    )


def instance_exists(name: str) -> Conflict:
    """The name is taken by an instance that this operation has not made."""
    return Conflict(
        f"There is an instance {name!r} already.",
        code="instance_exists",
        hint="Choose another name, or delete that instance first.",
    )


def instance_not_found(name: str) -> NotFound:
    """There is no such instance."""
    return NotFound(f"There is no instance {name!r}.", code="instance_not_found")


def has_snapshots(name: str) -> Conflict:
    """A rebuild would have to delete the snapshots."""
    return Conflict(
        f"{name!r} has snapshots, so it cannot be rebuilt in place.",
        code="has_snapshots",
        hint="Delete its snapshots first: they hold the root file system that a rebuild replaces.",
    )


def member_not_found(name: str, members: Iterable[str]) -> InvalidInput:
    """A specification names a member that the cluster has not got."""
    return InvalidInput(
        f"The cluster has no member {name!r}.",
        code="member_not_found",
        hint=f"It has {', '.join(sorted(members)) or 'only itself'}.",
    )


def member_offline(name: str, status: str) -> Conflict:
    """A specification names a member that is away."""
    return Conflict(
        f"The member {name!r} is {status.lower()}.",
        code="member_offline",
        hint="Choose another member, or leave the choice to the cluster.",
    )
