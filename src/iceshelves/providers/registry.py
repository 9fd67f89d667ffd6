"""Which provider drives which family.  The families are imported when they are first asked for."""

from __future__ import annotations

from typing import Final

from iceshelves.connections.values import Connection, Scenario
from iceshelves.core.errors import InvalidInput
from iceshelves.providers.base import Provider

FAMILIES: Final = ("incus", "lxd", "fake")


def open_provider(family: str, connection: Connection) -> Provider:
    """The provider of ``family`` at the end of ``connection``; nothing is sent until it is first used.

    Raises :class:`InvalidInput` ``unknown_family`` or ``invalid_connection``.
    """
    if family in ("incus", "lxd") and not isinstance(connection, Scenario):
        from iceshelves.providers.incus.provider import IncusProvider

        return IncusProvider(family, connection)
    if family == "fake" and isinstance(connection, Scenario):
        from iceshelves.providers.fake.provider import FakeProvider
        from iceshelves.providers.fake.world import open_world

        return FakeProvider(open_world(connection))
    if family not in FAMILIES:
        raise InvalidInput(
            f"{family!r} is not a family of hypervisors that can be driven.",
            code="unknown_family",
            hint=f"Use one of {', '.join(FAMILIES)}.",
        )
    raise InvalidInput(
        f"A cluster of family {family!r} cannot be reached by a {type(connection).__name__}.",
        code="invalid_connection",
        hint="The fake is reached by fake://NAME, and nothing else is.",
    )
