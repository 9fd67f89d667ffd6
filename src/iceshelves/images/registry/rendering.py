"""A group's entries as products, so that every alias binds to what it says.

Clients refuse an image that two products list, and bind an alias to the newest version of its product.  So:
the newest build's product has the aliases that it may have, and holds older builds only when no alias is left
to them; an older build that still owns an alias, such as its exact version, has a product of its own.  Where
the newest build lacks a type of image (a container or a virtual machine), that type has a product of its own
in the same way.  A delta needs its base's version in its own product: there the base stands with its metadata
alone, from which clients take its fingerprint, and which they do not list as an image.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from iceshelves.core.errors import Conflict
from iceshelves.images.registry.layout import IMAGES
from iceshelves.images.registry.model import Entry, Group, StoredFile
from iceshelves.images.simplestreams.model import Item, Product, Version
from iceshelves.images.simplestreams.names import DELTA, DISK, METADATA, SQUASHFS, image_type
from iceshelves.images.simplestreams.resolution import resolve

#: How many builds the main product of a group lists, if aliases leave it so many.
HISTORY: Final = 3


@dataclass(frozen=True, slots=True)
class _Part:
    """The root files of an entry that own the same aliases."""

    entry: Entry
    roots: tuple[StoredFile, ...]
    aliases: tuple[str, ...]


def products_of(group: Group, entries: Sequence[Entry]) -> list[Product]:
    """The products of ``group``; ``entries`` are those that it shows, newest first."""
    parts = list(_parts(entries))
    known = {entry.id: entry for entry in entries}
    products: list[Product] = []
    for part in parts:
        if part.aliases:
            main = group.appliance in part.aliases
            versions = _main_versions(part, parts, known) if main else {part.entry.serial: _version(part)}
            key = _key(group, part, {product.key for product in products})
            variant = group.appliance if main else f"{group.appliance}-{part.entry.version}"
            products.append(_product(key, variant, part, versions))
    return products


def bound_aliases(shown: Iterable[Entry]) -> dict[int, tuple[str, ...]]:
    """The aliases that bind to each entry's images, by its id; ``shown`` is what one channel shows."""
    groups: defaultdict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in sorted(shown, key=lambda each: each.serial, reverse=True):
        groups[entry.appliance, entry.architecture].append(entry)
    bound: defaultdict[int, dict[str, None]] = defaultdict(dict)
    for entries in groups.values():
        for part in _parts(entries):
            bound[part.entry.id] |= dict.fromkeys(part.aliases)
    return {entry: tuple(aliases) for entry, aliases in bound.items()}


def owner_of(alias: str, image: str, shown: Sequence[Entry]) -> Entry | None:
    """The entry whose image of type ``image`` an alias binds to; ``shown`` is one group's, newest first."""
    owners = _owners(shown)
    roots = (root for root in (SQUASHFS, DISK) if image_type(root) == image)
    return next((owners[root, alias][0] for root in roots if (root, alias) in owners), None)


def check_aliases(group: Group, entries: Sequence[Entry], products: Sequence[Product]) -> None:
    """Raises :class:`Conflict` ``misleading_alias`` when clients would bind an alias to another build."""
    resolution = resolve(products)
    expected = _owners(entries)
    found = {(key.type, key.name): image.fingerprint for key, image in resolution.aliases.items()}
    for (kind, alias), (_, root) in expected.items():
        for name in (alias, f"{alias}/{group.architecture}"):
            if found.pop((image_type(kind), name), None) != root.fingerprint:
                raise _misleading(name)
    for _, name in found:
        raise _misleading(name)
    if resolution.repeated or resolution.contested:
        raise _misleading(group.appliance)


def _misleading(alias: str) -> Conflict:
    return Conflict(
        f"Clients would bind the alias {alias!r} to another image than it says.",
        code="misleading_alias",
        hint="Choose other further aliases for this appliance.",
    )


def _owners(entries: Sequence[Entry]) -> Mapping[tuple[str, str], tuple[Entry, StoredFile]]:
    """The newest entry that wants each alias, by type of root file."""
    owners: dict[tuple[str, str], tuple[Entry, StoredFile]] = {}
    for entry in entries:
        for root in entry.roots:
            for alias in entry.all_aliases:
                owners.setdefault((root.kind, alias), (entry, root))
    return owners


def _parts(entries: Sequence[Entry]) -> Iterator[_Part]:
    owners = _owners(entries)
    for entry in entries:
        by_aliases: dict[tuple[str, ...], list[StoredFile]] = {}
        for root in entry.roots:
            own = tuple(alias for alias in entry.all_aliases if owners[root.kind, alias][0] is entry)
            by_aliases.setdefault(own, []).append(root)
        for aliases, roots in by_aliases.items():
            yield _Part(entry, tuple(roots), aliases)


def _main_versions(part: _Part, parts: Sequence[_Part], known: Mapping[int, Entry]) -> dict[str, Version]:
    kinds = {root.kind for root in part.roots}
    versions = {part.entry.serial: _version(part, known)}
    for other in parts:
        roots = tuple(root for root in other.roots if root.kind in kinds)
        if not other.aliases and roots and len(versions) < HISTORY:
            versions[other.entry.serial] = _version(_Part(other.entry, roots, ()))
    if SQUASHFS in kinds:
        for delta in part.entry.deltas:
            base = known.get(delta.base or 0)
            if base is not None and base.serial not in versions:
                versions[base.serial] = _bare_version(base)
    return versions


def _key(group: Group, part: _Part, taken: set[str]) -> str:
    """Clients never look at keys; they are made to be read, and differ."""
    key = f"{group.appliance}:{group.channel}:{group.architecture}"
    if group.appliance not in part.aliases:
        key = f"{key}:{part.entry.serial}"
    return key if key not in taken else f"{key}:{image_type(part.roots[0].kind)}"


def _product(key: str, variant: str, part: _Part, versions: Mapping[str, Version]) -> Product:
    entry = part.entry
    return Product(
        key,
        part.aliases,
        entry.architecture,
        entry.os,
        entry.release,
        variant,
        versions,
        entry.version,
        entry.requirements,
    )


def _version(part: _Part, bases: Mapping[int, Entry] | None = None) -> Version:
    items = _metadata_items(part.entry, part.roots)
    for root in part.roots:
        items[root.kind] = Item(root.kind, f"{IMAGES}/{root.name}", root.sha256, root.size)
    if any(root.kind == SQUASHFS for root in part.roots):
        for delta in part.entry.deltas:
            base = (bases or {}).get(delta.base or 0)
            if base is not None:
                path = f"{IMAGES}/{delta.name}"
                item = Item(DELTA, path, delta.sha256, delta.size, delta_base=base.serial)
                items[f"{base.serial}.{DELTA}"] = item
    return Version(part.entry.serial, items, f"{part.entry.appliance} {part.entry.version}")


def _bare_version(entry: Entry) -> Version:
    roots = tuple(root for root in entry.roots if root.kind == SQUASHFS)
    return Version(entry.serial, _metadata_items(entry, roots), f"{entry.appliance} {entry.version}")


def _metadata_items(entry: Entry, roots: Sequence[StoredFile]) -> dict[str, Item]:
    metadata = entry.metadata
    combined = {root.kind: root.fingerprint for root in roots if root.fingerprint}
    path = f"{IMAGES}/{metadata.name}"
    return {ftype: Item(ftype, path, metadata.sha256, metadata.size, combined) for ftype in METADATA.values()}
