"""The builders there are, behind one small interface."""

from __future__ import annotations

from typing import Final, Protocol

from iceshelves.core.errors import NotFound
from iceshelves.images.build import isolation, launch
from iceshelves.images.build.events import BuildResult
from iceshelves.images.build.job import Job


class Builder(Protocol):
    """Turns a job into an image."""

    @property
    def name(self) -> str:
        """How users choose it."""

    def missing(self) -> str | None:
        """What this machine or user lacks for it, for people; None when it can be used."""

    async def build(self, job: Job, on_event: launch.OnEvent) -> BuildResult:
        """Build; ends with everything tidied up, also when it is cancelled.  Raises errors of ours."""


class Mmdebstrap:
    """Debian and Ubuntu from nothing but a package mirror: mmdebstrap for the base, apt for the rest."""

    name: Final = "mmdebstrap"

    def missing(self) -> str | None:
        return isolation.missing()

    async def build(self, job: Job, on_event: launch.OnEvent) -> BuildResult:
        return await launch.build(job, on_event)


BUILDERS: Final[tuple[Builder, ...]] = (Mmdebstrap(),)


def builder(name: str) -> Builder:
    """The builder called ``name``.  Raises :class:`NotFound` (``builder_not_found``)."""
    for each in BUILDERS:
        if each.name == name:
            return each
    raise NotFound(
        f"No builder is called {name!r}.",
        code="builder_not_found",
        hint=f"There are: {', '.join(each.name for each in BUILDERS)}.",
    )
