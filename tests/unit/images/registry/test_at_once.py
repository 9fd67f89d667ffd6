"""Many publishers, readers beside them, and publishers that are killed: old or new, nothing in between."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from iceshelves.core.errors import Temporary
from iceshelves.images.files import ImageFiles
from iceshelves.images.registry import (
    Group,
    Publication,
    Registry,
    Retention,
    Wanted,
    collect,
    entries,
    locking,
    plan_gc,
    verify,
    verify_tree,
)
from testbed.made_images import Made

from .conftest import Bench, read_view

_PROCESSES = multiprocessing.get_context("fork")
#: what a program does to a disk, as the interpreter tells it (docs.python.org: "Audit events table")
_STEPS = frozenset({"open", "os.rename", "os.remove", "os.chmod", "os.mkdir", "sqlite3.connect"})


class Reader(threading.Thread):
    """Reads a view over and over as a client does; ``error`` is what it met."""

    def __init__(self, tree: Path) -> None:
        super().__init__()
        self._tree = tree
        self._ended = threading.Event()
        self.error: Exception | None = None
        self.rounds = 0

    def run(self) -> None:
        while not self._ended.is_set():
            try:
                read_view(self._tree)
            except Exception as error:  # noqa: BLE001  (the test says what it was)
                self.error = error
                return
            self.rounds += 1

    def __enter__(self) -> Reader:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()


def publish(root: Path, publication: Publication) -> None:
    with Registry.open(root) as registry:
        registry.publish(publication)


def test_twenty_publishers_keep_twenty(bench: Bench) -> None:
    publications = [
        bench.publication(Made(name=f"app-{number % 10}", rootfs=b"%d" % number)) for number in range(20)
    ]
    children = [_PROCESSES.Process(target=publish, args=(bench.root, each)) for each in publications]
    with Reader(bench.root / "tree") as reader:
        for child in children:
            child.start()
        for child in children:
            child.join(60)
    assert reader.error is None
    assert reader.rounds > 0
    assert [child.exitcode for child in children] == [0] * 20
    assert len(bench.registry.find()) == 20
    assert {entry.serial for entry in bench.registry.find()} == {"20260921_0600", "20260921_0601"}
    assert len(read_view(bench.root / "tree")) == 10
    assert verify(bench.registry).clean


def killed(work: Callable[[], object], step: int) -> bool:
    """Do ``work`` in a process that is killed at its ``step``-th touch of the disk; whether it was."""
    child = os.fork()
    if child == 0:
        done = 0

        def count(event: str, _arguments: object) -> None:
            nonlocal done
            if event in _STEPS:
                done += 1
                if done == step:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def every_step(template: Path, work: Callable[[Path], object], check: Callable[[Path], None]) -> int:
    """Kill ``work`` at each of its steps, each time in a new copy of ``template``; the number of steps."""
    for step in range(1, 1000):
        copy = template.with_name(f"copy-{step}")
        shutil.copytree(template, copy)
        if not killed(lambda copy=copy: work(copy), step):  # type: ignore[misc]
            return step
        check(copy)
        shutil.rmtree(copy)
    raise AssertionError("it never ended")


def shown(tree: Path) -> list[frozenset[str]]:
    """The root files of each view."""
    return [
        frozenset(
            item["sha256"]
            for product in read_view(tree, view).values()
            for version in product["versions"].values()
            for item in version["items"].values()
            if item["ftype"] == "squashfs"
        )
        for view in ("", "stable", "stable/amd64")
    ]


@pytest.mark.parametrize("given_away", [False, True])
def test_a_publisher_killed_at_any_step_leaves_the_old_or_the_new(folder: Path, given_away: bool) -> None:
    template = folder / "template"
    with Registry.create(template) as registry:
        registry.publish(Publication(Made(rootfs=b"old").files(template / "old")))
    Made(version="1.24.0", rootfs=b"new", disk=b"new").files(template / "new")
    names = ("meta.tar.xz", "rootfs.squashfs", "disk.qcow2")
    [old, *_] = shown(template / "tree")
    seen: set[int] = set()

    def one_more(root: Path) -> None:
        files = ImageFiles(*(root / "new" / name for name in names))
        publish(root, Publication(files, given_away=given_away))

    def is_whole(root: Path) -> None:
        views = shown(root / "tree")
        assert all(view >= old for view in views)
        assert verify_tree(root / "tree").clean
        with Registry.open(root) as registry:
            report = verify(registry)
            assert {each.code for each in report.findings} <= {"orphans"}
            published = len(registry.find())
            assert {len(view) for view in shown(root / "tree")} == {published}
            assert max(map(len, views)) <= published
            seen.add(published)

    assert every_step(template, one_more, is_whole) > 30
    assert seen == {1, 2}


def test_a_collector_killed_at_any_step_loses_nothing_that_is_shown(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = folder / "template"
    with Registry.create(template) as registry:
        for number in range(3):
            made = Made(version=f"1.{number}.0", rootfs=b"%d" % number)
            registry.publish(Publication(made.files(template / "made")))
        registry.rollback(Group("stable", "nginx", "amd64"))
        kept = registry.find(Wanted(channel="stable"))[0]
    later = int(time.time()) + 10 * 86400
    monkeypatch.setattr(entries, "seconds_now", lambda: later)

    def one_round(root: Path) -> None:
        with Registry.open(root) as registry:
            collect(registry, plan_gc(registry, Retention(newest=1, days=0)))

    def is_whole(root: Path) -> None:
        with Registry.open(root) as registry:
            report = verify(registry)
            assert {each.code for each in report.findings} <= {"orphans"}
            one_round(root)
            assert [entry.id for entry in registry.find(Wanted(channel="stable"))] == [kept.id]
            assert verify(registry).clean

    assert every_step(template, one_round, is_whole) > 10


def test_publishers_killed_at_random_and_a_reader_beside_them(bench: Bench) -> None:
    bench.publish(Made())
    dice = random.Random(4)
    with Reader(bench.root / "tree") as reader:
        for number in range(12):
            publication = bench.publication(Made(version=f"2.{number}", rootfs=b"%d" % number))
            child = _PROCESSES.Process(target=publish, args=(bench.root, publication))
            child.start()
            time.sleep(dice.uniform(0, 0.08))
            child.kill()
            child.join()
    assert reader.error is None
    assert verify(bench.registry).clean
    bench.publish(Made(version="3.0", rootfs=b"last"))
    assert bench.aliases()["nginx"] == "nginx 3.0"


def test_a_writer_that_hangs_is_waited_for_and_then_named(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "_PATIENCE", 0.1)
    with bench.registry.writing(), pytest.raises(Temporary) as refusal, bench.registry.writing():
        raise AssertionError("two writers")
    assert refusal.value.code == "registry_busy"
