"""Names that come from outside are data: matched against a pattern before they reach a path or a URL."""

from __future__ import annotations

import re
from typing import Final

from iceshelves.core.errors import InvalidInput

# Incus and LXD (shared/validate/net.go: a host name label): letters, digits, hyphens; starts with a letter.
INSTANCE_NAME: Final = re.compile(r"[A-Za-z](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
OBJECT_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?")


def check_instance_name(name: str) -> str:
    """``name`` if a hypervisor accepts it as an instance's host name.  Raises :class:`InvalidInput`."""
    if not INSTANCE_NAME.fullmatch(name):
        raise InvalidInput(
            f"{name!r} cannot be an instance's name.",
            code="invalid_instance_name",
            hint="Use 1 to 63 letters, digits and hyphens; start with a letter; do not end with a hyphen.",
        )
    return name


def check_object_name(name: str, what: str) -> str:
    """``name`` if it can name an egg, a cluster or a tenant (``what``).  Raises :class:`InvalidInput`."""
    if not OBJECT_NAME.fullmatch(name):
        raise InvalidInput(
            f"{name!r} cannot be the name of {what}.",
            code="invalid_name",
            hint="Use 1 to 63 of a-z, 0-9, '.', '_' and '-', with a letter or digit at both ends.",
        )
    return name
