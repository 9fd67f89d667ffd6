"""Garbage: what goes, what stays, and that the plan says so to the byte."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from iceshelves.core.errors import InvalidInput
from iceshelves.images.registry import Group, Registry, Retention, collect, entries, plan_gc, verify
from testbed.made_images import Made

from .conftest import Bench

DAY = 86400


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The clock: days since the start, to be changed."""
    start = entries.seconds_now()
    days = [0]
    monkeypatch.setattr(entries, "seconds_now", lambda: start + days[0] * DAY)
    return days


def used(bench: Bench) -> int:
    return sum(path.stat().st_size for path in bench.registry.layout.images.iterdir())


def test_old_builds_leave_the_channel_then_the_disk(bench: Bench, time: list[int]) -> None:
    for number in range(6):
        bench.publish(Made(version=f"1.{number}.0", rootfs=b"%d" % number * 1000))
        time[0] += 10
    retention = Retention(newest=2, days=25)
    plan = plan_gc(bench.registry, retention)
    assert [each.entry.version for each in plan.withdrawals] == ["1.3.0", "1.2.0", "1.1.0", "1.0.0"]
    assert (plan.bytes, plan.forgotten) == (0, ())
    assert plan_gc(bench.registry, Retention(newest=2, days=1000)).withdrawals == ()
    collect(bench.registry, plan)
    assert set(bench.aliases()) == {"nginx", "nginx/1.5.0", "nginx/1.4.0"}
    time[0] += 1
    assert plan_gc(bench.registry, retention).files == ()
    time[0] += 2
    plan = plan_gc(bench.registry, retention)
    before = used(bench)
    done = collect(bench.registry, plan)
    assert done == plan
    assert plan.bytes == before - used(bench) > 4000
    assert len(bench.registry.find()) == 2
    assert verify(bench.registry).findings == ()
    assert plan_gc(bench.registry, retention).files == ()


def test_a_withdrawn_build_goes_after_its_grace(bench: Bench, time: list[int]) -> None:
    bench.publish(Made(rootfs=b"old"))
    bad = bench.publish(Made(rootfs=b"new")).entry
    bench.registry.rollback(Group("stable", "nginx", "amd64"))
    assert plan_gc(bench.registry, Retention(newest=1, days=0)).files == ()
    time[0] += 3
    plan = plan_gc(bench.registry, Retention())
    assert [entry.id for entry in plan.forgotten] == [bad.id]
    assert [Path(file.path).name for file in plan.files] == [bad.roots[0].name]  # they share their metadata
    bench.registry.restore(Group("stable", "nginx", "amd64"))
    assert collect(bench.registry, plan).files == ()
    assert verify(bench.registry).findings == ()
    newer = bench.publish(Made(rootfs=b"newer")).entry
    assert newer.serial > bad.serial


def test_version_keys_are_never_given_twice(bench: Bench, time: list[int]) -> None:
    bench.publish(Made(rootfs=b"old"))
    bad = bench.publish(Made(rootfs=b"new")).entry
    bench.registry.rollback(Group("stable", "nginx", "amd64"))
    time[0] += 3
    collect(bench.registry, plan_gc(bench.registry, Retention()))
    assert bench.publish(Made(rootfs=b"newer")).entry.serial > bad.serial


def test_a_build_in_another_channel_stays(bench: Bench, time: list[int]) -> None:
    bench.publish(Made(rootfs=b"old"))
    bench.registry.promote("nginx", "stable", "lts")
    bench.publish(Made(rootfs=b"new"))
    time[0] += 100
    for _ in range(2):
        collect(bench.registry, plan_gc(bench.registry, Retention(newest=1, days=1)))
        time[0] += 3
    assert [(entry.channels) for entry in bench.registry.find()] == [("stable",), ("lts",)]
    assert verify(bench.registry).findings == ()


def test_only_what_is_ours_and_old_is_swept(bench: Bench, time: list[int]) -> None:
    bench.publish(Made())
    images, incoming = bench.registry.layout.images, bench.registry.layout.incoming
    orphan, young = images / f"{'a' * 64}.squashfs", images / f"{'b' * 64}.squashfs"
    page, left, busy = images / "index.html", incoming / "left", incoming / "busy"
    nested = incoming / "deltas-x/draft"
    nested.parent.mkdir()
    now = entries.seconds_now()
    for file in (orphan, young, page, left, busy, nested):
        file.write_bytes(b"12345")
        age = 3 * DAY if file in (orphan, page, left, nested) else 0
        os.utime(file, (now - age, now - age))
    plan = plan_gc(bench.registry, Retention())
    assert [file.path for file in plan.files] == [
        f"tree/images/{orphan.name}", "incoming/deltas-x/draft", "incoming/left"
    ]  # fmt: skip
    assert plan.bytes == 15
    left.unlink()  # somebody was faster
    done = collect(bench.registry, plan)
    assert done.bytes == 10
    assert [file.exists() for file in (orphan, young, page, left, busy, nested.parent)] == [
        False, True, True, False, True, False
    ]  # fmt: skip


def test_a_file_that_is_needed_again_stays(bench: Bench, time: list[int]) -> None:
    made = Made(rootfs=b"again")
    entry = bench.publish(made).entry
    content = (bench.registry.layout.images / entry.roots[0].name).read_bytes()
    other = bench.folder / "other"
    with Registry.create(other) as registry:
        stray = registry.layout.images / entry.roots[0].name
        stray.write_bytes(content)
        os.utime(stray, (0, 0))
        plan = plan_gc(registry, Retention())
        assert plan.bytes == len(content)
        registry.publish(bench.publication(made))
        assert collect(registry, plan).files == ()
        assert verify(registry).findings == ()


@pytest.mark.parametrize("retention", [Retention(newest=0), Retention(days=-1), Retention(grace=600)])
def test_retention_that_would_break_clients(bench: Bench, retention: Retention) -> None:
    with pytest.raises(InvalidInput) as refusal:
        plan_gc(bench.registry, retention)
    assert refusal.value.code == "invalid_retention"
