"""Verifying trees that were damaged, and trees that were made to do harm."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iceshelves.core.errors import NotFound
from iceshelves.images.registry import Registry, verify, verify_tree
from iceshelves.images.registry.findings import Findings
from iceshelves.images.registry.judging import Image, Needed
from iceshelves.images.registry.memory import Memory
from iceshelves.images.registry.scrubbing import Scrub
from testbed.made_images import Made

from .conftest import Bench

#: changes the only product of a catalogue
Trick = Callable[[dict[str, Any]], object]


@pytest.fixture
def tree(bench: Bench) -> Path:
    """A copy of a registry's tree with one image, in one view only, without its database."""
    bench.publish(Made())
    copy = bench.folder / "copy"
    shutil.copytree(bench.root / "tree", copy)
    shutil.rmtree(copy / "stable")
    assert verify_tree(copy).findings == ()
    return copy


def codes(tree: Path) -> set[str]:
    return {finding.code for finding in verify_tree(tree).findings}


def change(tree: Path, trick: Trick) -> None:
    file = tree / "streams/v1/images.json"
    catalogue = json.loads(file.read_bytes())
    [product] = catalogue["products"].values()
    trick(product)
    file.write_text(json.dumps(catalogue))


def items(product: dict[str, Any]) -> dict[str, Any]:
    [version] = product["versions"].values()
    found: dict[str, Any] = version["items"]
    return found


def rename_version(product: dict[str, Any], key: str) -> None:
    [version] = product["versions"].values()
    product["versions"] = {key: version}


FILE = "0" * 64 + ".squashfs"


def root(**changed: Any) -> Trick:
    """Change members of the squashfs."""
    return lambda product: items(product)["squashfs"].update(changed)


def described(families: tuple[str, ...], **changed: Any) -> Trick:
    """Change members of the metadata items."""
    return lambda product: [items(product)[family].update(changed) for family in families]


def once_more(key: str) -> Trick:
    """Give the only version a second key."""
    return lambda product: product["versions"].update({key: next(iter(product["versions"].values()))})


def baseless(product: dict[str, Any]) -> None:
    delta = {**items(product)["squashfs"], "ftype": "squashfs.vcdiff", "delta_base": "20200101_0000"}
    items(product)["delta"] = delta


BOTH = ("incus.tar.xz", "lxd.tar.xz")


@pytest.mark.parametrize(
    ("trick", "code"),
    [
        (root(path="../../etc/passwd"), "unsafe_path"),
        (root(path="/etc/passwd"), "unsafe_path"),
        (root(path=f"../images/{FILE}"), "unsafe_path"),
        (root(path=f"images/../{FILE}"), "unsafe_path"),
        (root(path=f"images/{FILE}"), "not_named_by_content"),
        (root(sha256="../../../etc/cron.d/x"), "bad_hash"),
        (root(sha256="A" * 64), "bad_hash"),
        (root(size=99), "wrong_size"),
        (root(size=-1), "bad_catalogue"),
        (root(size=True), "bad_catalogue"),
        (root(size="97"), "bad_catalogue"),
        (root(Path="images/other"), "bad_catalogue"),
        (root(path=["images"]), "bad_catalogue"),
        (root(ftype="text/plain"), "incomplete_version"),
        (lambda product: items(product).pop("incus.tar.xz"), "one_family_only"),
        (lambda product: items(product).pop("squashfs"), "incomplete_version"),
        (described(BOTH, combined_squashfs_sha256=""), "no_fingerprint"),
        (described(BOTH, combined_squashfs_sha256="0" * 64), "wrong_fingerprint"),
        (described(BOTH[:1], combined_squashfs_sha256="0" * 64), "families_differ"),
        (baseless, "delta_without_base"),
        (lambda product: rename_version(product, "newest"), "invisible_version"),
        (lambda product: rename_version(product, "20269999_0000"), "invisible_version"),
        (once_more("20260921_06:00"), "mixed_versions"),
        (once_more("20260921_0601"), "image_listed_twice"),
        (lambda product: product.update(arch="vax"), "unknown_architecture"),
        (lambda product: product.update(arch="arm64"), "wrong_architecture"),
        (lambda product: product.update(versions=[]), "bad_catalogue"),
        (lambda product: product.update(requirements={"secureboot": False}), "bad_catalogue"),
    ],
)
def test_a_trick_in_a_catalogue_is_found(tree: Path, trick: Trick, code: str) -> None:
    change(tree, trick)
    assert code in codes(tree)


@pytest.mark.parametrize(
    "text",
    [
        b"", b"[]", b"{", b"\xff\xfe", b"[" * 500_000, b'{"a":' * 100_000, b'{"format": NaN}',
        b'{"format": "index:1.0", "format": "index:1.0", "index": {}}', b'{"index": ' + b"9" * 5000 + b"}",
        b'{"format": "index:1.0", "index": [' + b"{}," * 2_500_000 + b"{}]}",
    ],
    ids=range(10),
)  # fmt: skip
@pytest.mark.parametrize("file", ["index.json", "images.json"])
def test_json_that_is_none_or_too_much_is_refused(tree: Path, text: bytes, file: str) -> None:
    (tree / "streams/v1" / file).write_bytes(text)
    report = verify_tree(tree)
    assert not report.clean
    assert {finding.code for finding in report.findings} & {"unreadable_catalogue", "bad_catalogue"}


def test_a_gigabyte_of_json_is_not_read(tree: Path) -> None:
    with (tree / "streams/v1/images.json").open("r+b") as stream:
        stream.truncate(1024**3)
    assert "file_missing" in codes(tree)


def test_catalogues_that_are_links_or_pipes_are_not_followed(tree: Path) -> None:
    file = tree / "streams/v1/images.json"
    moved = tree / "elsewhere.json"
    file.rename(moved)
    file.symlink_to(moved)
    assert "file_missing" in codes(tree)
    file.unlink()
    os.mkfifo(file)
    assert "file_missing" in codes(tree)


def test_an_index_that_leads_elsewhere(tree: Path) -> None:
    file = tree / "streams/v1/index.json"
    index = json.loads(file.read_bytes())
    own = index["index"]["images"]
    index["index"] |= {
        "passwd": {**own, "path": "../../etc/passwd"},
        "again": dict(own),
        "other": {**own, "datatype": "text"},
    }
    own["products"] = ["something:else"]
    file.write_text(json.dumps(index))
    found = verify_tree(tree).findings
    assert {finding.code for finding in found} >= {"unsafe_path", "same_file_name", "index_differs"}
    assert not any("index.json#other" in finding.where for finding in found)


def test_an_alias_in_two_products_is_found_with_the_one_that_wins(bench: Bench) -> None:
    for name in ("aaa", "nginx"):
        bench.publish(Made(name=name, rootfs=name.encode()))
    file = bench.root / "tree/streams/v1/images.json"
    catalogue = json.loads(file.read_bytes())
    catalogue["products"]["aaa:stable:amd64"]["aliases"] = "aaa,nginx"
    file.write_text(json.dumps(catalogue))
    found = [each for each in verify_tree(bench.root / "tree").findings if each.code == "alias_contested"]
    assert found
    assert all("clients take aaa:stable:amd64" in each.message for each in found)


def test_damaged_files_are_found_and_all_of_them(bench: Bench) -> None:
    entries = [bench.publish(Made(name=f"app-{number}", rootfs=b"%d" % number)).entry for number in range(4)]
    assert verify(bench.registry).clean
    images = bench.registry.layout.images
    files = [images / entry.roots[0].name for entry in entries]
    files[0].write_bytes(files[0].read_bytes()[:-1] + b"X")
    files[1].write_bytes(b"short")
    files[2].unlink()
    (images / entries[3].metadata.name).write_bytes(bytes(entries[3].metadata.size))
    found = {(each.code, each.severity) for each in verify(bench.registry).findings}
    assert found >= {("wrong_hash", "error"), ("wrong_size", "error"), ("file_missing", "error")}
    assert ("bad_metadata", "error") in found


def test_what_was_found_good_is_read_again_only_when_asked(bench: Bench) -> None:
    entry = bench.publish(Made(rootfs=b"x" * 5000)).entry
    first = verify(bench.registry)
    assert (first.read, first.known_good) == (entry.size, 0)
    second = verify(bench.registry)
    assert (second.read, second.known_good) == (0, 2)
    assert verify(bench.registry, everything=True).read == entry.size
    file = bench.registry.layout.images / entry.roots[0].name
    before = file.stat()
    file.write_bytes(file.read_bytes().replace(b"x", b"y"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert verify(bench.registry).clean  # this trick is what everything is for
    assert not verify(bench.registry, everything=True).clean
    assert not verify(bench.registry).clean  # and it is not forgotten


def test_metadata_that_cannot_be_read_is_found_every_time(bench: Bench) -> None:
    bench.publish(Made())
    content = b"no archive"
    name = f"{hashlib.sha256(content).hexdigest()}.tar.xz"
    (bench.registry.layout.images / name).write_bytes(content)
    [squashfs] = bench.registry.layout.images.glob("*.squashfs")
    fingerprint = hashlib.sha256(content + squashfs.read_bytes()).hexdigest()
    image = Image(name, squashfs.name, fingerprint, "amd64", "here")
    needed = [
        Needed(file.name, file.name[:64], file.stat().st_size, "here")
        for file in (squashfs, squashfs.with_name(name))
    ]
    memory = Memory()
    for _ in range(2):
        findings = Findings()
        Scrub(bench.registry.layout.images, findings, memory).check(needed, [image], [])
        assert [finding.code for finding in findings.found] == ["bad_metadata"]


def test_a_tree_that_is_not_as_recorded(bench: Bench) -> None:
    bench.publish(Made())
    file = bench.root / "tree/stable/streams/v1/images.json"
    file.write_text(file.read_text().replace("Debian", "Ubuntu"))
    stray = bench.registry.layout.images / f"{'0' * 64}.squashfs"
    stray.write_bytes(b"stray")
    report = verify(bench.registry)
    assert {(each.code, each.where) for each in report.findings} == {
        ("not_as_recorded", "stable/streams/v1/images.json"), ("orphans", "images")
    }  # fmt: skip
    assert not report.clean
    bench.publish(Made(rootfs=b"heals"))
    assert verify(bench.registry).clean


def test_catalogues_that_were_lost_are_written_anew(bench: Bench) -> None:
    bench.publish(Made())
    before = {file: file.read_bytes() for file in (bench.root / "tree").rglob("*.json")}
    for number, file in enumerate(before):
        if number % 2:
            file.unlink()
        else:
            file.write_text("{}")
    assert not verify(bench.registry).clean
    bench.registry.rewrite()
    assert {file: file.read_bytes() for file in before} == before
    assert verify(bench.registry).findings == ()


def test_there_is_no_tree(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        verify_tree(tmp_path / "none")
    assert codes(tmp_path) == {"no_index"}
    with Registry.create(tmp_path / "registry"):
        assert verify_tree(tmp_path / "registry/tree").findings == ()
