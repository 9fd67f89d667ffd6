"""A build as whoever carries it out sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from iceshelves.images.build.job import Compression, InstanceType
from iceshelves.providers.base import Mark

KIND: Final = "build"
#: its steps; trying it out and publishing are left out where they were not asked for
BUILD: Final = "build"
BOOT: Final = "boot"
PUBLISH: Final = "publish"


@dataclass(frozen=True, slots=True)
class BuildJob:
    """What to build, and what to do with it.  See :class:`iceshelves.store.models.Build`."""

    operation_id: str
    tenant_id: int
    build_id: int
    begun: bool
    steps: tuple[str, ...]
    appliance: str
    architecture: str
    types: tuple[InstanceType, ...]
    compression: Compression
    recipe: bytes
    lock: str | None
    cluster_id: int | None
    channel: str | None
    timeout: float
    mark: Mark

    @property
    def kind(self) -> str:
        """Every build is of one kind."""
        return KIND

    @property
    def deployment_id(self) -> None:
        """A build is not about a deployment."""
        return

    @property
    def secrets(self) -> Sequence[str]:
        """A build holds none."""
        return ()

    @property
    def topics(self) -> tuple[str, ...]:
        """What is told on the bus when something of it changes."""
        return (f"operation:{self.operation_id}", f"build:{self.build_id}")
