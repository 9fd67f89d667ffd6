"""What goes into a registry and what comes out of it, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any, Final

from iceshelves.core.clock import to_text
from iceshelves.images.files import ImageFiles
from iceshelves.images.simplestreams.names import DELTA, DISK, SQUASHFS, image_type

#: The channel that the registry's own URL shows.
STABLE: Final = "stable"
#: The kind of a stored metadata tarball; each family's catalogue item is made from it.
METADATA_KIND: Final = "metadata"

_SUFFIXES: Final = {METADATA_KIND: "tar.xz", SQUASHFS: "squashfs", DISK: "qcow2", DELTA: "vcdiff"}


@dataclass(frozen=True, slots=True)
class Publication:
    """An image to publish.  Its name, version and the rest are read from its own metadata.

    ``aliases`` are wanted besides ``NAME`` and ``NAME/VERSION``.  ``requirements`` are SimpleStreams'
    (``{"secureboot": "false"}``).  Files that are ``given_away`` are moved into the registry, not copied,
    and are gone also when it refuses them.
    """

    files: ImageFiles
    channel: str = STABLE
    aliases: tuple[str, ...] = ()
    requirements: Mapping[str, str] = field(default_factory=dict)
    given_away: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """The builds of an appliance for an architecture that a channel shows."""

    channel: str
    appliance: str
    architecture: str

    def __str__(self) -> str:
        return f"{self.appliance} for {self.architecture} in {self.channel}"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of an entry: ``kind`` is ``metadata`` or a type of SimpleStreams item, ``size`` in bytes.

    A root file makes an image, which has a ``fingerprint``.  A delta starts from the entry ``base``.
    """

    kind: str
    sha256: str
    size: int
    fingerprint: str | None = None
    base: int | None = None

    @property
    def name(self) -> str:
        """What the file is called among the images."""
        return file_name(self.kind, self.sha256)


@dataclass(frozen=True, slots=True)
class Entry:
    """A published build.  ``serial`` is its key in catalogues; ``channels`` are those that show it."""

    id: int
    appliance: str
    architecture: str
    version: str
    serial: str
    os: str
    release: str
    description: str
    aliases: tuple[str, ...]
    requirements: Mapping[str, str]
    published_at: datetime
    files: tuple[StoredFile, ...]
    channels: tuple[str, ...] = ()

    @property
    def metadata(self) -> StoredFile:
        """The metadata tarball."""
        return next(file for file in self.files if file.kind == METADATA_KIND)

    @property
    def roots(self) -> tuple[StoredFile, ...]:
        """The files that make images: a squashfs, a disk, or both."""
        return tuple(file for file in self.files if file.fingerprint is not None)

    @property
    def deltas(self) -> tuple[StoredFile, ...]:
        """The deltas to its squashfs."""
        return tuple(file for file in self.files if file.kind == DELTA)

    @property
    def fingerprints(self) -> dict[str, str]:
        """The fingerprint for each type of image: ``container``, ``virtual-machine``."""
        return {image_type(root.kind): root.fingerprint for root in self.roots if root.fingerprint}

    @property
    def all_aliases(self) -> tuple[str, ...]:
        """Every alias that this build would like to have; newer builds may have taken some."""
        own = (self.appliance, f"{self.appliance}/{self.version}")
        return own + tuple(alias for alias in self.aliases if alias not in own)

    @property
    def size(self) -> int:
        """Bytes of its images, without deltas."""
        return sum(file.size for file in self.files if file.kind != DELTA)

    def to_json(self) -> dict[str, Any]:
        """The entry as JSON values, in the API's words."""
        return {
            "appliance": self.appliance,
            "architecture": self.architecture,
            "version": self.version,
            "serial": self.serial,
            "os": self.os,
            "release": self.release,
            "description": self.description,
            "channels": list(self.channels),
            "requirements": dict(self.requirements),
            "fingerprints": self.fingerprints,
            "size": self.size,
            "published_at": to_text(self.published_at),
        }


class Outcome(Enum):
    """What a publish or a promotion came to."""

    PUBLISHED = "published"
    #: known from another channel, and now shown in this one too
    PROMOTED = "promoted"
    #: the channel shows this very image already, and only its aliases or requirements are new
    RELABELLED = "relabelled"
    #: the channel shows this very image already; nothing was written
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class Published:
    """An entry, and what became of it in ``channel``."""

    entry: Entry
    channel: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Moved:
    """The entry that aliases of a group bound to before, and the one that they bind to now."""

    group: Group
    before: Entry
    now: Entry


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries to list; ``None`` means any.  Without a channel, those that none shows come too."""

    channel: str | None = None
    appliance: str | None = None
    architecture: str | None = None


def file_name(kind: str, sha256: str) -> str:
    """The name of a file of ``kind`` by its content."""
    return f"{sha256}.{_SUFFIXES[kind]}"
