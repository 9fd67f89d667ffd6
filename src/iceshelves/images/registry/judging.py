"""Catalogues judged as clients would take them: names, items, aliases.  No file of an image is looked at."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from iceshelves.images.registry.findings import Findings
from iceshelves.images.registry.layout import IMAGES
from iceshelves.images.simplestreams.model import Item, Product, Version
from iceshelves.images.simplestreams.names import (
    ARCHITECTURES,
    COMBINED,
    DELTA,
    ITEM_PATH,
    METADATA,
    SHA256,
    is_version_key,
)
from iceshelves.images.simplestreams.resolution import Resolution, resolve

_ROOTS: Final = frozenset(COMBINED)
_ANY_DIGIT: Final = re.compile("[0-9]")
_UNKNOWN_HINT: Final = "Clients skip it; remove it, or build the image for an architecture that they know."
_FAMILY_HINT: Final = "Publish it with IceShelves, which serves both families."


@dataclass(frozen=True, slots=True)
class Needed:
    """A file as an item has it.  ``name`` is that among the images, ``where`` the item's place."""

    name: str
    sha256: str
    size: int
    where: str


@dataclass(frozen=True, slots=True)
class Image:
    """An image as a catalogue has it: metadata and root file by name, and the fingerprint of both."""

    metadata: str
    root: str
    fingerprint: str
    architecture: str
    where: str


@dataclass(frozen=True, slots=True)
class Delta:
    """A delta by name, and the fingerprints of the images that it leads from and to."""

    name: str
    base: str
    target: str
    where: str


class Judge:
    """Judges the products of one view; ``path`` is the view's, below the tree."""

    def __init__(self, findings: Findings, path: str) -> None:
        self._findings = findings
        self._path = path
        self.files: list[Needed] = []
        self.images: list[Image] = []
        self.deltas: list[Delta] = []

    def judge(self, file: str, products: Sequence[Product]) -> None:
        """Judge the products of the catalogue ``file``."""
        for product in products:
            where = f"{file}#{product.key}"
            if product.architecture not in ARCHITECTURES:
                self._findings.warning(
                    "unknown_architecture", where,
                    f"No client knows the architecture {product.architecture[:40]!r}.", _UNKNOWN_HINT,
                )  # fmt: skip
            shapes = {_ANY_DIGIT.sub("0", key) for key in product.versions}
            if len(shapes) > 1:
                self._findings.catalogue(
                    "mixed_versions",
                    where,
                    "Its version keys have different forms, which do not sort by time.",
                )
            bases = {
                item.delta_base for version in product.versions.values() for item in version.items.values()
            }
            for version in product.versions.values():
                self._version(f"{where}/{version.key}", product, version, version.key in bases)

    def judge_aliases(self, products: Sequence[Product]) -> None:
        """Judge what clients of either family make of all ``products`` of the view together."""
        views = {family: resolve(products, family) for family in METADATA}
        for family, resolution in views.items():
            self._aliases(f"{self._path or '.'} ({family})", resolution)
        if len({frozenset(image.fingerprint for image in each.images) for each in views.values()}) > 1:
            self._findings.warning(
                "one_family_only", self._path or ".", "Incus and LXD see different images.", _FAMILY_HINT
            )

    def _aliases(self, where: str, resolution: Resolution) -> None:
        for fingerprint in sorted(resolution.repeated):
            self._findings.catalogue(
                "image_listed_twice", where, f"{fingerprint} is listed twice, so clients refuse to fetch it."
            )
        for key, products in sorted(resolution.contested.items()):
            self._findings.catalogue(
                "alias_contested", where,
                f"The alias {key.name!r} for {key.type} on {key.architecture} is in {', '.join(products)}; "
                f"clients take {resolution.aliases[key].product.key}.",
            )  # fmt: skip

    def _version(self, where: str, product: Product, version: Version, is_base: bool) -> None:
        if not is_version_key(version.key):
            self._findings.catalogue("invisible_version", where, "Its key does not begin with a date.")
        for key, item in version.items.items():
            self._item(f"{where}/{key}", item)
        roots = [item for item in version.items.values() if item.ftype in _ROOTS]
        descriptions = [item for item in version.items.values() if item.ftype in METADATA.values()]
        if not descriptions or not (roots or is_base):
            self._findings.catalogue(
                "incomplete_version", where, "It is no image: metadata or root is missing."
            )
        if len({(item.sha256, tuple(sorted(item.combined.items()))) for item in descriptions}) > 1:
            self._findings.catalogue("families_differ", where, "Its metadata differs between Incus and LXD.")
        for item in descriptions[:1]:
            for root in roots:
                self._image(where, product, item, root)
            for delta in version.items.values():
                if delta.ftype == DELTA:
                    self._delta(where, product, item, delta)

    def _image(self, where: str, product: Product, metadata: Item, root: Item) -> None:
        fingerprint = metadata.combined.get(root.ftype, "")
        if not SHA256.fullmatch(fingerprint):
            self._findings.catalogue("no_fingerprint", where, f"It has no fingerprint for its {root.ftype}.")
            return
        self.images.append(Image(_name(metadata), _name(root), fingerprint, product.architecture, where))

    def _delta(self, where: str, product: Product, metadata: Item, delta: Item) -> None:
        base = product.versions.get(delta.delta_base or "")
        combined = next(_squashfs_fingerprints(base), None) if base else None
        if combined is None:
            self._findings.catalogue("delta_without_base", where, "A delta's base is not in its product.")
            return
        self.deltas.append(Delta(_name(delta), combined, metadata.combined.get("squashfs", ""), where))

    def _item(self, where: str, item: Item) -> None:
        if not SHA256.fullmatch(item.sha256):
            self._findings.catalogue("bad_hash", where, "Its sha256 is not 64 hexadecimal digits.")
            return
        meant = posixpath.normpath(posixpath.join(self._path, item.path))
        if not ITEM_PATH.fullmatch(item.path) or posixpath.dirname(meant) != IMAGES:
            self._findings.catalogue("unsafe_path", where, f"Its path leads elsewhere: {item.path[:120]!r}.")
            return
        if not _name(item).startswith(f"{item.sha256}."):
            self._findings.catalogue(
                "not_named_by_content", where, f"{_name(item)} is not named by its hash."
            )
            return
        self.files.append(Needed(_name(item), item.sha256, item.size, where))


def _squashfs_fingerprints(version: Version) -> Iterator[str]:
    for item in version.items.values():
        if item.ftype in METADATA.values() and "squashfs" in item.combined:
            yield item.combined["squashfs"]


def _name(item: Item) -> str:
    return item.path.rpartition("/")[2]
