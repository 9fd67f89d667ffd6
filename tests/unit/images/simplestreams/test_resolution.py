"""What clients make of a catalogue, and that what a registry writes always means what it says."""

from __future__ import annotations

import functools
import hashlib
from datetime import UTC, datetime
from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from iceshelves.images.registry.model import Entry, Group, StoredFile
from iceshelves.images.registry.rendering import HISTORY, check_aliases, products_of
from iceshelves.images.simplestreams import Item, Product, Version, resolve
from iceshelves.images.simplestreams.names import COMBINED, image_type

GROUP = Group("stable", "nginx", "amd64")


def product(
    key: str, aliases: str, versions: dict[str, str], variant: str = "", os: str = "debian"
) -> Product:
    """A product whose versions hold one root each, by its type; fingerprints are ``key/version``."""
    found = {}
    for version, root in versions.items():
        metadata = Item("incus.tar.xz", "m", "m", 1, {root: f"{key}/{version}"})
        found[version] = Version(version, {"m": metadata, "r": Item(root, "r", "r", 1)})
    return Product(key, tuple(aliases.split(",")), "amd64", os, "12", variant, found)


def binding(*products: Product) -> dict[tuple[str, str], str]:
    return {(key.name, key.type): image.fingerprint for key, image in resolve(products).aliases.items()}


def test_the_newest_of_one_product_wins() -> None:
    found = binding(product("p", "web", {"20260101_0000": "squashfs", "20260102_0000": "squashfs"}))
    assert found == {
        ("web", "container"): "p/20260102_0000", ("web/amd64", "container"): "p/20260102_0000"
    }  # fmt: skip


def test_another_variant_wins_even_when_it_is_older() -> None:
    old = product("old", "web", {"20200101_0000": "squashfs"}, variant="a")
    new = product("new", "web", {"20260101_0000": "squashfs"}, variant="b")
    assert binding(new, old)["web", "container"] == "old/20200101_0000"
    assert resolve([new, old]).contested
    assert binding(product("z", "web", {"20200101_0000": "squashfs"}, os="alpine"), old)[
        "web", "container"
    ].startswith("z")


def test_forms_of_version_keys_sort_as_text() -> None:
    mixed = product("p", "web", {"20261120_0729": "squashfs", "20261120_07:29": "squashfs"})
    assert binding(mixed)["web", "container"] == "p/20261120_07:29"


def test_types_are_bound_apart_and_better_roots_first() -> None:
    both = {"20260101_0000": "disk-kvm.img", "20260102_0000": "squashfs"}
    assert binding(product("p", "web", both))["web", "virtual-machine"] == "p/20260101_0000"
    worse = product("a", "web", {"20260101_0000": "root.tar.xz"})
    better = product("b", "web", {"20260101_0000": "squashfs"})
    assert binding(worse, better)["web", "container"] == "b/20260101_0000"


def test_what_clients_do_not_see() -> None:
    undated = product("p", "web", {"latest": "squashfs"})
    assert resolve([undated]).images == ()
    [version] = product("p", "web", {"20260101_0000": "squashfs"}).versions.values()
    for unseen in ({"r": version.items["r"]}, {"m": version.items["m"]}):
        assert (
            resolve(
                [Product("p", ("web",), "amd64", "", "", "", {"20260101": Version("20260101", unseen)})]
            ).images
            == ()
        )
    assert resolve([product("p", "web", {"20260101": "squashfs"})], "lxd").images == ()


# ---- every history of publishing

roots = st.sampled_from([("squashfs",), ("disk-kvm.img",), ("squashfs", "disk-kvm.img")])
builds = st.tuples(
    st.sampled_from(["1.0.0", "1.1.0", "2.0.0"]), roots, st.sets(st.sampled_from(["lts", "edge"]))
)


def history(found: list[tuple[str, tuple[str, ...], set[str]]]) -> list[Entry]:
    """Entries, newest first, with a delta from each to the one before it."""
    made = []
    for number, (version, kinds, words) in enumerate(found, 1):
        digests = (hashlib.sha256(b"%d-%d" % (number, part)).hexdigest() for part in count())
        files = [StoredFile("metadata", next(digests), 1)]
        files += [StoredFile(kind, next(digests), 2, next(digests)) for kind in kinds]
        if number > 1 and "squashfs" in kinds:
            files.append(StoredFile("squashfs.vcdiff", next(digests), 1, base=number - 1))
        entry = Entry(
            number,
            "nginx",
            "amd64",
            version,
            f"20260101_{number:04}",
            "Debian",
            f"{number % 2}",
            "",
            tuple(f"nginx/{word}" for word in sorted(words)),
            {},
            datetime.now(UTC),
            tuple(files),
        )
        made.append(entry)
    return made[::-1]


def as_a_client_does(products: list[Product]) -> dict[tuple[str, str], str]:
    """The clients' algorithm, written down as they have it: compare pairs, then give names away in order."""
    images = [
        (
            each.os,
            each.release,
            each.variant,
            version.key,
            root.ftype,
            metadata.combined[root.ftype],
            each.aliases,
        )
        for each in products
        for version in each.versions.values()
        for metadata in version.items.values()
        if metadata.ftype == "lxd.tar.xz"
        for root in version.items.values()
        if root.ftype in metadata.combined
    ]

    def compare(one: tuple[object, ...], other: tuple[object, ...]) -> int:
        for place in range(3):
            if one[place] != other[place]:
                return -1 if str(one[place]) < str(other[place]) else 1
        if one[3] != other[3]:
            return 1 if str(one[3]) < str(other[3]) else -1
        return list(COMBINED).index(str(one[4])) - list(COMBINED).index(str(other[4]))

    bound: dict[tuple[str, str], str] = {}
    for *_, ftype, fingerprint, names in sorted(images, key=functools.cmp_to_key(compare)):
        for name in names:
            bound.setdefault((name, image_type(ftype)), fingerprint)
    return bound


@given(st.lists(builds, min_size=1, max_size=7))
def test_every_alias_is_what_it_says(found: list[tuple[str, tuple[str, ...], set[str]]]) -> None:
    entries = history(found)
    products = products_of(GROUP, entries)
    check_aliases(GROUP, entries, products)
    bound = as_a_client_does(products)
    newest: dict[tuple[str, str], str] = {}
    for entry in entries:
        for root in entry.roots:
            for alias in entry.all_aliases:
                newest.setdefault((alias, image_type(root.kind)), str(root.fingerprint))
    assert bound == newest
    resolution = resolve(products)
    assert not resolution.repeated  # clients refuse to fetch an image that is listed twice
    assert not resolution.contested
    assert len({product.key for product in products}) == len(products)
    for each in products:
        listed = {image.version.key for image in resolution.images if image.product is each}
        assert len(listed) <= HISTORY
        for version in each.versions.values():
            for item in version.items.values():
                if item.delta_base is not None:
                    assert item.delta_base in each.versions
