"""Instances of all clusters over the wire, ours or not."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from iceshelves.clusters.ownership import Ownership
from iceshelves.server.schemas.common import Body, Failure, Moment, Named, Paging, Shown, Words

#: as hypervisors name instances; more of them are allowed than we would make
InstanceName = Annotated[str, StringConstraints(max_length=63, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class InstanceQuery(Paging):
    """Which instances to list; ``cluster`` is a number or a name."""

    cluster: Words | None = None
    ownership: Ownership | None = None
    search: Words | None = None


class FoundInstance(Shown):
    """An instance and whose it is: ours, adopted, foreign, or in conflict, for ``reason``."""

    name: str
    kind: str
    power: str
    member: str | None
    architecture: str
    image: str
    description: str
    ownership: Ownership
    reason: str


class InstanceItem(FoundInstance):
    """An instance as it was last seen.  ``deployment_id`` is that which its mark names."""

    cluster: Named
    deployment_id: int | None
    seen_on: Moment


class OwnershipCounts(Shown):
    """How many there are of each."""

    ours: int
    adopted: int
    foreign: int
    conflict: int


class ClusterScan(Shown):
    """What a look at a cluster found; nothing was changed."""

    cluster: str
    counts: OwnershipCounts
    instances: list[FoundInstance]


class InstanceNames(Body):
    """The instances that something is to be done to."""

    names: Annotated[list[InstanceName], Field(max_length=1000)] = Field(default_factory=list)


class InstanceOutcome(Shown):
    """What became of one instance; ``error`` says why nothing was done, ``note`` that nothing had to be."""

    name: str
    ok: bool
    error: Failure | None
    note: str = ""


class InstanceOutcomes(Shown):
    """What became of each instance that was named; ``done`` counts those that are as wanted now."""

    done: int
    results: list[InstanceOutcome]
