"""Catalogue files: small shards that groups never leave, and only the changed ones written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from iceshelves.images.registry import Group, StoredFile, catalogues, entries, verify
from testbed.made_images import Made

from .conftest import Bench, read_view


def shards(tree: Path) -> dict[str, list[str]]:
    files = sorted((tree / "streams/v1").glob("images*.json"))
    return {file.name: sorted(json.loads(file.read_bytes())["products"]) for file in files}


def index(tree: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tree / "streams/v1/index.json").read_bytes())["index"]
    return found


def test_groups_stay_in_their_shard(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogues, "SHARD", 4000)
    tree = bench.root / "tree"
    for number in range(6):
        bench.publish(Made(name=f"app-{number}"))
    before = shards(tree)
    assert len(before) > 1
    assert [len(stream["products"]) for stream in index(tree).values()] == [
        len(each) for each in before.values()
    ]
    times = {file: file.stat().st_mtime_ns for file in tree.rglob("*.json")}
    bench.publish(Made(name="app-0", rootfs=b"new"))
    changed = {
        file.relative_to(tree).as_posix() for file, time in times.items() if file.stat().st_mtime_ns != time
    }
    assert changed == {f"{view}streams/v1/images.json" for view in ("", "stable/", "stable/amd64/")}
    for version in ("1.24.0", "1.25.0", "1.26.0"):  # grows, and still stays
        bench.publish(Made(name="app-0", version=version, rootfs=version.encode()))
    after = shards(tree)
    assert [key for key in after["images.json"] if ":2026" not in key] == before["images.json"]
    assert {name: after[name] for name in after if name != "images.json"} == {
        name: before[name] for name in before if name != "images.json"
    }
    assert verify(bench.registry).clean


def test_an_empty_shard_leaves_the_index_and_keeps_its_file(bench: Bench) -> None:
    bench.publish(Made())
    with bench.registry.writing() as desk:
        [entry] = bench.registry.find()
        desk.connection.execute("BEGIN")
        desk.withdraw(entry, "stable")
        desk.render()
        desk.connection.execute("COMMIT")
    tree = bench.root / "tree"
    assert index(tree) == {}
    assert json.loads((tree / "streams/v1/images.json").read_bytes())["products"] == {}
    bench.publish(Made(rootfs=b"back"))
    assert list(read_view(tree)) == ["nginx:stable:amd64"]


def test_deltas_and_bases_follow_the_newest(bench: Bench) -> None:
    """A base that has a product of its own stands in the main one with its metadata alone."""
    old = bench.publish(Made(version="1.22.1", rootfs=b"old")).entry
    new = bench.publish(Made(version="1.24.0", rootfs=b"new")).entry
    content = "d" * 64
    (bench.registry.layout.images / f"{content}.vcdiff").write_bytes(b"12345")
    with bench.registry.writing() as desk:
        desk.connection.execute("BEGIN")
        entries.add_delta(desk.connection, new.id, StoredFile("squashfs.vcdiff", content, 5, base=old.id))
        desk.touch(new)
        desk.render()
        desk.connection.execute("COMMIT")
    versions = read_view(bench.root / "tree")["nginx:stable:amd64"]["versions"]
    assert set(versions[old.serial]["items"]) == {"incus.tar.xz", "lxd.tar.xz"}
    deltas = [item for item in versions[new.serial]["items"].values() if item["ftype"] == "squashfs.vcdiff"]
    assert [delta["delta_base"] for delta in deltas] == [old.serial]
    bench.registry.rollback(Group("stable", "nginx", "amd64"))
    assert set(read_view(bench.root / "tree")["nginx:stable:amd64"]["versions"]) == {old.serial}
