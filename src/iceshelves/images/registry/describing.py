"""What an image says of itself, checked: its own metadata is the only source for its place in a catalogue."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from iceshelves.core import clock
from iceshelves.core.errors import InvalidInput
from iceshelves.images.metadata import ImageMetadata
from iceshelves.images.registry.model import Publication
from iceshelves.images.simplestreams.names import (
    APPLIANCE,
    ARCHITECTURES,
    check_alias,
    check_channel,
    check_service_version,
    read_serial,
    serial_at,
)

#: What the clients enforce at an instance's start (incus doc: "Image format", requirements).
_REQUIREMENTS: Final = frozenset(
    {"cdrom_agent", "cdrom_cloud_init", "cgroup", "nesting", "privileged", "secureboot"}
)
_LONGEST: Final = 200
_MOST_ALIASES: Final = 16
#: Clocks of builders may be ahead a little; a serial far ahead would outrank every later build.
_AHEAD: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Description:
    """The part of an image's metadata that catalogues show."""

    appliance: str
    architecture: str
    version: str
    serial: str
    os: str
    release: str
    description: str


def describe(metadata: ImageMetadata) -> Description:
    """What ``metadata`` says.  Raises :class:`InvalidInput` when it lacks something or says it badly."""
    appliance = _property(metadata, "variant")
    if not APPLIANCE.fullmatch(appliance):
        raise _invalid(f"its variant {appliance!r} cannot be an appliance's name")
    architecture = _property(metadata, "architecture")
    if metadata.architecture not in (architecture, ARCHITECTURES.get(architecture)):
        raise _invalid(f"it is for {metadata.architecture[:40]!r} and its properties say {architecture!r}")
    if architecture not in ARCHITECTURES:
        raise _invalid(f"no client knows the architecture {architecture!r}")
    return Description(
        appliance,
        architecture,
        check_service_version(_property(metadata, "version")),
        _serial(metadata),
        _property(metadata, "os"),
        _property(metadata, "release"),
        metadata.properties.get("description", "")[:_LONGEST],
    )


def check_publication(publication: Publication, description: Description) -> None:
    """Raises :class:`InvalidInput` for a bad channel, alias or requirement."""
    check_channel(publication.channel)
    if len(publication.aliases) > _MOST_ALIASES:
        raise InvalidInput(f"An image has at most {_MOST_ALIASES} further aliases.", code="invalid_alias")
    for alias in publication.aliases:
        check_alias(alias, description.appliance, description.version)
    for name, value in publication.requirements.items():
        if name not in _REQUIREMENTS or not value.isprintable() or not 0 < len(value) <= _LONGEST:
            raise InvalidInput(
                f"{name[:40]!r} is not a requirement that Incus and LXD know.",
                code="invalid_requirement",
                hint=f"Use {', '.join(sorted(_REQUIREMENTS))}.",
            )


def _property(metadata: ImageMetadata, name: str) -> str:
    value = metadata.properties.get(name, "")
    if not value or len(value) > _LONGEST or not value.isprintable():
        raise _invalid(f"its metadata has no usable property {name!r}")
    return value


def _serial(metadata: ImageMetadata) -> str:
    serial = metadata.properties.get("serial") or serial_at(datetime.fromtimestamp(metadata.created, UTC))
    if read_serial(serial) > clock.now() + _AHEAD:
        raise _invalid(f"its serial {serial} lies in the future")
    return serial


def _invalid(what: str) -> InvalidInput:
    return InvalidInput(
        f"The image cannot be published: {what}.",
        code="invalid_image",
        hint="Build it with IceShelves, or set os, release, variant, architecture and version in its "
        "metadata.yaml.",
    )
