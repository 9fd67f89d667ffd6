"""Publishing, promoting, rolling back: what aliases bind to afterwards."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from iceshelves.core import clock
from iceshelves.core.errors import Conflict, InvalidInput, NotFound
from iceshelves.images.files import ImageFiles, fingerprints
from iceshelves.images.registry import Group, Outcome, Publication, Registry, Wanted, verify
from testbed.made_images import CREATED, Made

from .conftest import Bench, read_view

NGINX = Group("stable", "nginx", "amd64")


def test_an_image_is_published_for_both_families_in_three_views(bench: Bench) -> None:
    made = Made(rootfs=b"root", disk=b"disk")
    publication = bench.publication(made)
    published = bench.registry.publish(publication)
    assert (published.outcome, published.entry.serial) == (Outcome.PUBLISHED, "20260921_0600")
    found = fingerprints(publication.files)
    assert published.entry.fingerprints == {
        "container": found.container, "virtual-machine": found.virtual_machine
    }  # fmt: skip
    for view, climb in (("", ""), ("stable", "../"), ("stable/amd64", "../../")):
        [product] = read_view(bench.root / "tree", view).values()
        items = product["versions"]["20260921_0600"]["items"]
        assert items["incus.tar.xz"]["combined_squashfs_sha256"] == found.container
        assert items["lxd.tar.xz"]["combined_disk-kvm-img_sha256"] == found.virtual_machine
        assert items["squashfs"]["path"].startswith(f"{climb}images/")
        content = (bench.root / "tree" / view / items["squashfs"]["path"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == items["squashfs"]["sha256"]
        assert product["aliases"] == "nginx,nginx/1.22.1"
    assert publication.files.metadata.exists()
    assert list((bench.root / "incoming").iterdir()) == []


def test_files_that_are_given_away_are_moved(bench: Bench) -> None:
    publication = bench.publication(Made(), given_away=True)
    inode = publication.files.rootfs.stat().st_ino if publication.files.rootfs else 0
    entry = bench.registry.publish(publication).entry
    shelved = bench.registry.layout.images / entry.roots[0].name
    assert shelved.stat().st_ino == inode
    assert not publication.files.metadata.exists()
    assert verify(bench.registry).clean


def test_the_same_image_is_not_published_again(bench: Bench) -> None:
    bench.publish(Made())
    before = {path: path.stat().st_mtime_ns for path in bench.root.rglob("*.json")}
    again = bench.publish(Made())
    assert again.outcome is Outcome.UNCHANGED
    assert len(bench.registry.find()) == 1
    assert {path: path.stat().st_mtime_ns for path in bench.root.rglob("*.json")} == before
    relabelled = bench.publish(Made(), aliases=("nginx/lts",))
    assert relabelled.outcome is Outcome.RELABELLED
    assert "nginx/lts" in bench.aliases()


def test_exact_versions_stay_resolvable_and_no_image_is_listed_twice(bench: Bench) -> None:
    for number, version in enumerate(["1.22.1", "1.22.1", "1.22.2", "1.24.0"]):
        bench.publish(Made(version=version, rootfs=b"%d" % number), aliases=(f"nginx/{version[:4]}",))
    assert bench.aliases() == {
        "nginx": "nginx 1.24.0", "nginx/1.24.0": "nginx 1.24.0", "nginx/1.24": "nginx 1.24.0",
        "nginx/1.22.2": "nginx 1.22.2", "nginx/1.22": "nginx 1.22.2", "nginx/1.22.1": "nginx 1.22.1",
    }  # fmt: skip
    found = {entry.version: entry.id for entry in bench.registry.find()[:3]}
    assert bench.registry.bound_aliases() == {
        found["1.24.0"]: ("nginx", "nginx/1.24.0", "nginx/1.24"),
        found["1.22.2"]: ("nginx/1.22.2", "nginx/1.22"),
        bench.registry.find()[2].id: ("nginx/1.22.1",),
        bench.registry.find()[3].id: (),
    }
    assert bench.registry.resolve("nginx/1.22", NGINX).version == "1.22.2"
    with pytest.raises(NotFound):
        bench.registry.resolve("nginx", NGINX, "virtual-machine")
    serials = [entry.serial for entry in bench.registry.find()]
    assert serials == ["20260921_0603", "20260921_0602", "20260921_0601", "20260921_0600"]
    assert verify(bench.registry).clean


def test_a_machine_stays_where_a_newer_build_has_none(bench: Bench) -> None:
    bench.publish(Made(version="1.22.1", disk=b"old"))
    bench.publish(Made(version="1.24.0", rootfs=b"new"))
    assert bench.aliases()["nginx"] == "nginx 1.24.0"
    assert bench.aliases(kind="virtual-machine")["nginx"] == "nginx 1.22.1"
    assert "nginx/1.24.0" not in bench.aliases(kind="virtual-machine")
    assert verify(bench.registry).clean


def test_a_later_serial_is_kept_and_an_earlier_one_bumped(bench: Bench) -> None:
    assert bench.publish(Made(rootfs=b"1", serial="20260921_2359")).entry.serial == "20260921_2359"
    assert bench.publish(Made(rootfs=b"2", serial="20260920_0000")).entry.serial == "20260922_0000"
    assert bench.publish(Made(rootfs=b"3", serial="20260923_0000")).entry.serial == "20260923_0000"
    assert bench.publish(Made(rootfs=b"4", architecture="arm64")).entry.serial == "20260921_0600"


def test_without_a_serial_the_time_of_its_making_counts(bench: Bench) -> None:
    entry = bench.publish(Made(properties={"serial": ""})).entry
    assert entry.serial == clock.datetime.fromtimestamp(CREATED, clock.UTC).strftime("%Y%m%d_%H%M")


def test_promotion_shows_the_same_build_in_another_channel(bench: Bench) -> None:
    for architecture in ("amd64", "arm64"):
        bench.publish(Made(architecture=architecture), "testing")
    assert read_view(bench.root / "tree") == {}
    promoted = bench.registry.promote("nginx", "testing", "stable")
    assert [(each.entry.architecture, each.outcome) for each in promoted] == [
        ("amd64", Outcome.PROMOTED), ("arm64", Outcome.PROMOTED)
    ]  # fmt: skip
    assert {entry.channels for entry in bench.registry.find()} == {("stable", "testing")}
    assert len(read_view(bench.root / "tree", "stable/arm64")) == 1
    assert len(list(bench.registry.layout.images.iterdir())) == 3  # two metadata, one root
    again = bench.registry.promote("nginx", "testing", "stable", "amd64")
    assert [each.outcome for each in again] == [Outcome.UNCHANGED]


def test_promotion_never_goes_back_in_time(bench: Bench) -> None:
    bench.publish(Made(rootfs=b"old"), "testing")
    bench.publish(Made(rootfs=b"new"))
    with pytest.raises(Conflict) as refusal:
        bench.registry.promote("nginx", "testing", "stable")
    assert refusal.value.code == "newer_image_shown"
    with pytest.raises(NotFound) as missing:
        bench.registry.promote("redis", "testing", "stable")
    assert missing.value.code == "image_not_shown"


def test_rollback_and_restore(bench: Bench) -> None:
    bench.publish(Made(version="1.22.1", rootfs=b"old"))
    with pytest.raises(Conflict) as refusal:
        bench.registry.rollback(NGINX)
    assert refusal.value.code == "nothing_to_roll_back"
    bench.publish(Made(version="1.24.0", rootfs=b"new"))
    moved = bench.registry.rollback(NGINX)
    assert (moved.before.version, moved.now.version) == ("1.24.0", "1.22.1")
    assert bench.aliases() == {"nginx": "nginx 1.22.1", "nginx/1.22.1": "nginx 1.22.1"}
    with pytest.raises(Conflict) as refusal:
        bench.publish(Made(version="1.24.0", rootfs=b"new"))
    assert refusal.value.code == "image_withdrawn"
    assert bench.registry.restore(NGINX).now.version == "1.24.0"
    assert bench.aliases()["nginx"] == "nginx 1.24.0"
    with pytest.raises(Conflict) as refusal:
        bench.registry.restore(NGINX)
    assert refusal.value.code == "nothing_to_restore"
    with pytest.raises(NotFound):
        bench.registry.rollback(Group("stable", "nginx", "s390x"))


def test_a_container_and_a_machine_may_come_one_after_the_other(bench: Bench) -> None:
    bench.publish(Made(rootfs=b"root"))
    bench.publish(Made(rootfs=None, disk=b"disk"))
    assert bench.publish(Made(rootfs=b"root")).outcome is Outcome.UNCHANGED
    assert set(bench.aliases()) == set(bench.aliases(kind="virtual-machine")) == {"nginx", "nginx/1.22.1"}
    assert verify(bench.registry).clean


def test_an_image_is_never_listed_twice(bench: Bench) -> None:
    bench.publish(Made(rootfs=b"root"))
    with pytest.raises(Conflict) as refusal:
        bench.publish(Made(rootfs=b"root", disk=b"disk"))
    assert refusal.value.code == "image_shown_already"
    assert len(list(bench.registry.layout.images.iterdir())) == 2


def test_many_at_once_or_none(bench: Bench) -> None:
    good = [bench.publication(Made(name=f"app-{number}")) for number in range(40)]
    bad = bench.publication(Made(name="bad", version="not/a/version"))
    with pytest.raises(InvalidInput):
        bench.registry.publish_many([*good, bad])
    assert bench.registry.find() == []
    assert list(bench.registry.layout.images.iterdir()) == []
    assert list((bench.root / "incoming").iterdir()) == []
    assert len(bench.registry.publish_many(good)) == 40
    assert len(read_view(bench.root / "tree")) == 40
    assert [entry.appliance for entry in bench.registry.find(Wanted(appliance="app-7"))] == ["app-7"]
    assert bench.registry.find(Wanted(channel="testing")) == []
    assert bench.registry.channels() == ["stable"]


@pytest.mark.parametrize(
    ("made", "more", "code"),
    [
        (Made(name="Not a name"), {}, "invalid_image"),
        (Made(version="1 2"), {}, "invalid_service_version"),
        (Made(version="arm64"), {}, "invalid_service_version"),
        (Made(serial="20260231_0000"), {}, "invalid_serial"),
        (Made(serial="29990101_0000"), {}, "invalid_image"),
        (Made(architecture="vax"), {}, "invalid_image"),
        (Made(properties={"architecture": "arm64"}), {}, "invalid_image"),
        (Made(properties={"os": ""}), {}, "invalid_image"),
        (Made(properties={"release": "a\nb"}), {}, "invalid_image"),
        (Made(rootfs=None), {}, "invalid_image"),
        (Made(), {"aliases": ("redis",)}, "invalid_alias"),
        (Made(), {"aliases": ("nginx/amd64",)}, "invalid_alias"),
        (Made(), {"aliases": ("nginx/a,b",)}, "invalid_alias"),
        (Made(), {"aliases": ("nginx/1.23",)}, "misleading_alias"),
        (Made(), {"aliases": ("nginx/1.2",)}, "misleading_alias"),
        (Made(), {"channel": "images"}, "invalid_channel"),
        (Made(), {"channel": "../etc"}, "invalid_channel"),
        (Made(), {"requirements": {"root": "true"}}, "invalid_requirement"),
    ],
)  # fmt: skip
def test_what_cannot_be_published(bench: Bench, made: Made, more: dict[str, object], code: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        bench.publish(made, **more)  # type: ignore[arg-type]
    assert refusal.value.code == code
    assert bench.registry.find() == []
    assert list(bench.registry.layout.images.iterdir()) == []


def test_files_that_are_not_what_they_should_be(bench: Bench, tmp_path: Path) -> None:
    files = Made(disk=b"disk").files(tmp_path / "files")
    assert files.rootfs is not None
    assert files.disk is not None
    link, pipe, text = tmp_path / "link", tmp_path / "pipe", tmp_path / "text"
    link.symlink_to(files.rootfs)
    os.mkfifo(pipe)
    text.write_bytes(b"x" * 200)
    for bad in (
        ImageFiles(files.metadata, link), ImageFiles(files.metadata, pipe), ImageFiles(files.metadata, text),
        ImageFiles(files.metadata, files.disk), ImageFiles(files.metadata, None, files.rootfs),
        ImageFiles(files.metadata, tmp_path / "absent"), ImageFiles(files.rootfs, files.rootfs),
    ):  # fmt: skip
        with pytest.raises(InvalidInput):
            bench.registry.publish(Publication(bad))
    huge = tmp_path / "huge"
    with huge.open("wb") as stream:
        stream.truncate(1024**3)
    with pytest.raises(InvalidInput):
        bench.registry.publish(Publication(ImageFiles(huge, files.rootfs)))
    assert list((bench.root / "incoming").iterdir()) == []


def test_open_and_create(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        Registry.open(tmp_path / "none")
    with Registry.create(tmp_path / "one"):
        assert read_view(tmp_path / "one/tree") == {}
    with pytest.raises(Conflict):
        Registry.create(tmp_path / "one")
    with Registry.open(tmp_path / "one") as registry:
        assert verify(registry).clean
