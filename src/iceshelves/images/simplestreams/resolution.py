"""What the clients make of a catalogue: its images, and the image that each alias binds to.

Rules of incus 6.0 and lxd 5.0 (``shared/simplestreams``): a version is as many images as it has root items
beside a metadata item of the client's family.  Images are sorted by os, release, variant, newest version,
architecture and type of root; each alias, and each alias with ``/ARCHITECTURE``, binds for each type of image
and architecture to the first that wants it.  An image that is listed twice cannot be had at all: "More than
one match for the provided partial fingerprint".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from iceshelves.images.simplestreams.model import Item, Product, Version
from iceshelves.images.simplestreams.names import (
    ARCHITECTURES,
    COMBINED,
    METADATA,
    image_type,
    is_version_key,
)

_PREFERENCE: Final = {root: place for place, root in enumerate(COMBINED)}


@dataclass(frozen=True, slots=True)
class Listed:
    """An image as a client lists it."""

    fingerprint: str
    product: Product
    version: Version
    metadata: Item
    root: Item

    @property
    def type(self) -> str:
        """``container`` or ``virtual-machine``."""
        return image_type(self.root.ftype)


class AliasKey(NamedTuple):
    """What an alias is looked up by; ``architecture`` as Debian calls it."""

    name: str
    type: str
    architecture: str


@dataclass(frozen=True)
class Resolution:
    """All images, those that are listed more than once, and what each alias binds to."""

    images: tuple[Listed, ...]
    repeated: frozenset[str]
    aliases: Mapping[AliasKey, Listed]
    contested: Mapping[AliasKey, tuple[str, ...]]
    """Aliases that several products want, with the products' keys."""


def resolve(products: Iterable[Product], family: str = "incus") -> Resolution:
    """What a client of ``family`` (``incus`` or ``lxd``) sees in the catalogues of one view together."""
    images = sorted(_images(products, family), key=_place)
    seen: set[str] = set()
    repeated: set[str] = set()
    aliases: dict[AliasKey, Listed] = {}
    wanted_by: dict[AliasKey, dict[str, None]] = {}
    for image in images:
        if image.fingerprint in seen:
            repeated.add(image.fingerprint)
        seen.add(image.fingerprint)
        architecture = image.product.architecture
        for alias in image.product.aliases:
            for name in (alias, f"{alias}/{architecture}"):
                key = AliasKey(name, image.type, architecture)
                aliases.setdefault(key, image)
                wanted_by.setdefault(key, {})[image.product.key] = None
    contested = {key: tuple(keys) for key, keys in wanted_by.items() if len(keys) > 1}
    return Resolution(tuple(images), frozenset(repeated), aliases, contested)


def _images(products: Iterable[Product], family: str) -> Iterator[Listed]:
    for product in products:
        if product.architecture not in ARCHITECTURES:
            continue
        for version in product.versions.values():
            if is_version_key(version.key):
                yield from _images_of(product, version, METADATA[family])


def _images_of(product: Product, version: Version, metadata_type: str) -> Iterator[Listed]:
    for metadata in version.items.values():
        if metadata.ftype != metadata_type:
            continue
        for root in version.items.values():
            fingerprint = metadata.combined.get(root.ftype)
            if fingerprint:
                yield Listed(fingerprint, product, version, metadata, root)


def _place(image: Listed) -> tuple[str, str, str, tuple[int, ...], str, int]:
    product = image.product
    newest_first = (*(-ord(letter) for letter in image.version.key), 0)
    return (
        product.os,
        product.release,
        product.variant,
        newest_first,
        product.architecture,
        _PREFERENCE[image.root.ftype],
    )
