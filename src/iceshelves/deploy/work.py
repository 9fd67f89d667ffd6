"""What a step works with: the specification, the provider, and somewhere to say how it goes.

The same in the server and in an agent: no database and no engine in sight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from iceshelves.deploy.plans import Plans
from iceshelves.deploy.spec import DeploymentSpec
from iceshelves.images.files import ImageFiles
from iceshelves.operations.job import Report
from iceshelves.providers.base import Image, InstanceKind, InstanceSpec, Mark, Provider


def is_on_shelf(reference: str) -> bool:
    """Whether ``reference`` names an image of the tenant's own registry."""
    return reference.startswith("registry:")


class Shelf(Protocol):
    """The tenant's own registry, as a deployment takes images from it."""

    async def take(self, reference: str, kind: InstanceKind, architectures: Sequence[str]) -> ImageFiles:
        """The files of the image that ``reference`` names, for one of ``architectures`` (the kernel's names).

        Raises :class:`NotFound` ``image_not_found``.
        """
        ...


@dataclass(frozen=True)
class Work:
    """One operation, as its steps see it.  ``facts`` are the durable results of the steps before."""

    spec: DeploymentSpec
    mark: Mark
    provider: Provider
    report: Report
    facts: Mapping[str, Any] = field(default_factory=dict)
    #: lines of the guest's output that an earlier try of this operation has logged already
    guest_lines: int = 0
    #: what all operations on this cluster are about to place
    plans: Plans = field(default_factory=Plans)
    #: none where the registry is out of reach, as in an agent
    shelf: Shelf | None = None

    @property
    def member(self) -> str | None:
        """The member that the step ``validate`` chose; ``None`` where there was nothing to choose."""
        # an operation that an older version began has no such fact
        member: str | None = self.facts.get("member", self.spec.member)
        return member

    @property
    def image(self) -> Image:
        """The image that the step ``image`` found."""
        return Image(**self.facts["image"])

    @property
    def instance(self) -> InstanceSpec:
        """The instance with everything that the steps before found out."""
        made = self.spec.to_instance(self.image, self.mark, self.facts.get("volumes"))
        return replace(made, member=self.member)
