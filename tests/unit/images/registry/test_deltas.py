"""Deltas: made from earlier builds, applied again, kept only where they pay."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from iceshelves.images.registry import (
    Group,
    Retention,
    collect,
    entries,
    make_deltas,
    plan_gc,
    verify,
    verify_tree,
    xdelta,
)
from testbed.made_images import Made

from .conftest import Bench, read_view

GROUP = Group("stable", "nginx", "amd64")
needs_xdelta = pytest.mark.skipif(not xdelta.is_installed(), reason="not installed: xdelta3")


def three_builds(bench: Bench) -> list[str]:
    common = os.urandom(200_000)
    contents = [os.urandom(200_000), common, common[:100_000] + b"changed" + common[100_000:]]
    return [
        bench.publish(Made(version=f"1.{number}.0", rootfs=content)).entry.serial
        for number, content in enumerate(contents)
    ]


def deltas_in(bench: Bench) -> dict[str, int]:
    newest = read_view(bench.root / "tree")["nginx:stable:amd64"]["versions"]
    items = [item for version in newest.values() for item in version["items"].values()]
    return {item["delta_base"]: item["size"] for item in items if "delta_base" in item}


@needs_xdelta
def test_deltas_that_pay_are_published(bench: Bench) -> None:
    unlike, like, _ = three_builds(bench)
    report = make_deltas(bench.registry, GROUP)
    assert set(report.made) == {like}
    assert report.made[like] < 1000
    assert set(report.left_out) == {unlike}
    assert deltas_in(bench) == report.made
    first = verify(bench.registry)
    assert first.findings == ()
    assert make_deltas(bench.registry, GROUP).made == {}
    assert list(bench.registry.layout.incoming.iterdir()) == []


@needs_xdelta
def test_a_delta_that_gives_something_else_is_found(bench: Bench) -> None:
    three_builds(bench)
    make_deltas(bench.registry, GROUP)
    tree = bench.root / "tree"
    [delta] = bench.registry.layout.images.glob("*.vcdiff")
    other = bench.folder / "other.vcdiff"
    entry_files = sorted(tree.glob("images/*.squashfs"))
    xdelta.encode(entry_files[0], entry_files[0], other)
    content = other.read_bytes()
    name = hashlib.sha256(content).hexdigest()
    (tree / f"images/{name}.vcdiff").write_bytes(content)
    for file in tree.rglob("images.json"):
        text = file.read_text().replace(delta.name.split(".")[0], name)
        file.write_text(text.replace(f'"size":{delta.stat().st_size}}}', f'"size":{len(content)}}}'))
    assert "bad_delta" in {each.code for each in verify_tree(tree).findings}


@needs_xdelta
def test_deltas_go_when_their_image_is_no_longer_the_newest(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    three_builds(bench)
    make_deltas(bench.registry, GROUP)
    bench.publish(Made(version="2.0", rootfs=b"next"))
    assert deltas_in(bench) == {}
    now = entries.seconds_now()
    monkeypatch.setattr(entries, "seconds_now", lambda: now + 3 * 86400)
    plan = plan_gc(bench.registry, Retention())
    assert [Path(file.path).suffix for file in plan.files] == [".vcdiff"]
    assert collect(bench.registry, plan).bytes == plan.bytes > 0
    assert verify(bench.registry).findings == ()


def test_without_xdelta_there_are_none_and_it_is_said(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    three_builds(bench)
    monkeypatch.setattr(xdelta, "PROGRAM", "no-such-program")
    report = make_deltas(bench.registry, GROUP)
    assert report.made == {}
    assert set(report.left_out.values()) == {"xdelta3 is not installed"}


def test_there_are_none_for_machines_and_for_nothing(bench: Bench) -> None:
    assert make_deltas(bench.registry, GROUP).entry is None
    for number in range(2):
        bench.publish(Made(rootfs=None, disk=b"%d" % number))
    assert make_deltas(bench.registry, GROUP).entry is None
