"""Appliances, builds and published images over the wire."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Path
from pydantic import ConfigDict, Field

from iceshelves.server.schemas.common import (
    WHOLE,
    Asked,
    Body,
    Failure,
    Moment,
    Named,
    Paging,
    Shown,
    Words,
)

ApplianceName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z][a-z0-9-]*$")]
AppliancePath = Annotated[
    str, Path(min_length=1, max_length=63, pattern=r"^[a-z][a-z0-9-]*$", examples=["nginx"])
]
Channel = Annotated[str, Field(min_length=1, max_length=32, pattern=r"^[a-z][a-z0-9-]*$")]
Architecture = Annotated[str, Field(min_length=1, max_length=16, pattern=r"^[a-z0-9]+$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Sha256Path = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$", examples=["0" * 64])]
InstanceType = Literal["container", "virtual-machine"]
FileName = Annotated[str, Field(min_length=1, max_length=200)]
FileContent = Annotated[str, Field(max_length=1024 * 1024)]
#: as recipes name them, such as ``nginx/1.22``
Alias = Annotated[str, Field(min_length=1, max_length=200)]
Seconds = Annotated[float, Field(ge=1, le=86400)]


class AppliancePort(Shown):
    """A port that the appliance serves."""

    number: int
    protocol: str
    description: str


class ApplianceItem(Shown):
    """A built-in appliance.  Where ``version`` is empty, that of the package ``version_from`` decides."""

    name: str
    title: str
    description: str
    version: str
    version_from: str
    base: str
    architectures: list[str]
    types: list[str]
    ports: list[AppliancePort]
    tags: list[str]


class ApplianceDetail(ApplianceItem):
    """An appliance with its files, so that it can be copied."""

    readme: str
    recipe: str
    packages: list[str]


class NewBuildBody(Body):
    """An image to build: of a built-in ``appliance``, or of ``files`` (path to content in base64).

    It is tried out on the cluster ``gate`` if one is named, then published in ``channel`` if one is named.
    """

    model_config = ConfigDict(title="NewBuild", json_schema_extra={"examples": [{"appliance": "nginx"}]})

    appliance: ApplianceName | None = None
    files: Annotated[dict[FileName, FileContent], Field(max_length=500)] | None = None
    architecture: Architecture | None = None
    types: Annotated[list[InstanceType], Field(min_length=1, max_length=2)] | None = None
    compression: Literal["release", "fast"] = "release"
    lock: Annotated[str, Field(max_length=1024 * 1024)] | None = None
    gate: Words | None = None
    channel: Channel | None = None
    timeout: Seconds | None = None


class AcceptedBuildItem(Shown):
    """A build that was begun.  Its work is watched by its operation."""

    build_id: int
    operation_id: str
    appliance: str


class BuildItem(Shown):
    """A build and what came of it; ``result`` is empty until it has built something."""

    id: int
    appliance: str
    architecture: str
    types: list[str]
    compression: str
    status: str
    channel: str | None
    gate: Named | None
    operation_id: str
    result: dict[str, Any]
    error: Failure | None
    created_by: str
    created_on: Moment
    started_at: Moment | None
    completed_at: Moment | None


class BuildDetail(BuildItem):
    """A build with its lock: JSON that builds the same again."""

    lock: str | None


class BuildQuery(Paging):
    """Which builds to list."""

    appliance: ApplianceName | None = None


class ImageQuery(Paging):
    """Which published images to list."""

    channel: Channel | None = None
    appliance: ApplianceName | None = None
    architecture: Architecture | None = None


class ImageItem(Shown):
    """A published build; ``size`` in bytes, ``downloads`` of its root files and deltas by clients.

    ``aliases`` are those that bind to it in the channel that was asked for, or in ``stable``.
    """

    appliance: str
    architecture: str
    version: str
    serial: str
    os: str
    release: str
    description: str
    channels: list[str]
    aliases: list[str]
    requirements: dict[str, str]
    fingerprints: dict[str, str]
    size: int
    downloads: int
    published_at: str


class PublishBody(Body):
    """Files that were uploaded, by their SHA-256, to be published as one image."""

    model_config = ConfigDict(title="NewImage")

    metadata: Sha256
    rootfs: Sha256 | None = None
    disk: Sha256 | None = None
    channel: Channel = "stable"
    aliases: Annotated[list[Alias], Field(max_length=20)] = Field(default_factory=list)


class PublishedItem(Shown):
    """What became of it: ``published``, ``promoted``, ``relabelled`` or ``unchanged``."""

    outcome: str
    channel: str
    image: ImageItem


class PromoteBody(Body):
    """The newest build in ``source`` is to be shown in ``target`` too."""

    model_config = ConfigDict(title="Promotion")

    appliance: ApplianceName
    source: Channel
    target: Channel = "stable"
    architecture: Architecture | None = None


class PromotedItem(Shown):
    """What was promoted, one for each architecture."""

    promoted: list[PublishedItem]


class GroupBody(Body):
    """The builds of an appliance for an architecture in a channel."""

    model_config = ConfigDict(title="ImageGroup")

    appliance: ApplianceName
    channel: Channel = "stable"
    architecture: Architecture = "amd64"


class MovedItem(Shown):
    """What aliases bound to before, and what they bind to now."""

    before: ImageItem
    now: ImageItem


class VerifyQuery(Asked):
    """``everything`` reads files again that were found good before."""

    everything: bool = False


class VerifyFinding(Shown):
    """One thing about the registry."""

    severity: str
    code: str
    where: str
    message: str
    hint: str


class VerifiedItem(Shown):
    """What verifying found; ``read`` in bytes."""

    clean: bool
    findings: list[VerifyFinding]
    views: int
    images: int
    files: int
    read: int
    known_good: int


class GcBody(Body):
    """What to keep: in each channel the ``newest`` builds and all younger than ``days``.

    What goes out of a channel stays on disk for ``grace`` seconds more.  A dry run removes nothing.
    """

    model_config = ConfigDict(title="Retention")

    newest: Annotated[int, Field(ge=1, le=1000), WHOLE] = 5
    days: Annotated[float, Field(ge=0, le=36500)] = 30
    grace: Annotated[int, Field(ge=3600, le=31_536_000), WHOLE] = 48 * 3600
    dry_run: bool = False


class GcFile(Shown):
    """A file and its bytes."""

    path: str
    size: int


class GcWithdrawal(Shown):
    """A build that a channel shows no longer."""

    channel: str
    appliance: str
    architecture: str
    version: str
    serial: str


class CollectedItem(Shown):
    """What went, or would go; ``bytes`` is what the disk gets back."""

    dry_run: bool
    withdrawals: list[GcWithdrawal]
    files: list[GcFile]
    bytes: int


class UploadItem(Shown):
    """How many bytes of an upload are there."""

    sha256: str
    size: int


class UploadQuery(Asked):
    """Where the piece begins."""

    offset: Annotated[int, Field(ge=0, le=2**40)] = 0


class RemoteItem(Shown):
    """Where clients find the registry: ``path`` on this server, and below it each channel by its name."""

    path: str
    channels: list[str]
