"""What is ours to change: the rules on marks, and the refusals, that all families share."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Final

from iceshelves.core.errors import Conflict, InvalidInput, NotFound
from iceshelves.providers.base import Mark

#: keys that the hypervisor or we write; never part of a specification
RESERVED_KEYS: Final = ("volatile.", "image.", "user.iceshelves.")
#: how the deployment in the mark of an adopted instance begins, which no deployment has made
ADOPTED: Final = "adopted:"
#: characters of a uid, as the database keeps it
_LONGEST_UID: Final = 36


def same_deployment(ours: Mark, found: Mark | None) -> bool:
    """Whether ``found`` is a mark of the same deployment of the same installation."""
    return (
        found is not None and found.installation == ours.installation and found.deployment == ours.deployment
    )


def same_operation(ours: Mark, found: Mark | None) -> bool:
    """Whether ``found`` was made by the same operation of the same deployment."""
    return found is not None and same_deployment(ours, found) and found.operation == ours.operation


def adoption(installation: str) -> Mark:
    """A new mark for an instance that ``installation`` adopts.  A copy of the instance can be told by it."""
    unique = uuid.uuid4().hex[: _LONGEST_UID - len(ADOPTED)]
    return Mark(installation, f"{ADOPTED}{unique}", operation="", revision=0, egg="")


def is_adoption(mark: Mark | None, installation: str) -> bool:
    """Whether ``mark`` says that ``installation`` has adopted what it is on."""
    return mark is not None and mark.installation == installation and mark.deployment.startswith(ADOPTED)


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


def marked_otherwise(name: str) -> Conflict:
    """The instance cannot be adopted or released: somebody else's mark is on it."""
    return Conflict(
        f"The instance {name!r} carries the mark of a deployment or of another installation.",
        code="not_ours",
        hint="It was left as it is.",
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
