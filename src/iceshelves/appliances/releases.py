"""Code names of the distributions' releases, by their numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from iceshelves.appliances.model import Distribution

RELEASES: Final[Mapping[Distribution, Mapping[str, str]]] = {
    "debian": {"11": "bullseye", "12": "bookworm", "13": "trixie", "14": "forky"},
    "ubuntu": {
        "20.04": "focal",
        "22.04": "jammy",
        "24.04": "noble",
        "25.10": "questing",
        "26.04": "resolute",
    },
}


def code_name(distribution: Distribution, release: str) -> str | None:
    """The code name of ``release``, a number or a code name; None where it is another distribution's.

    A code name that is not known here is taken as it is: releases come faster than this list grows.
    """
    known = RELEASES[distribution]
    if not release.isalpha():
        return known.get(release)
    others = {name for other, names in RELEASES.items() if other != distribution for name in names.values()}
    return None if release in others else release
