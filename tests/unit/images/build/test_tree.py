"""What is put into a tree, and what is taken out of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from iceshelves.appliances.model import File
from iceshelves.core.errors import InvalidInput
from iceshelves.images.build.base import clamp
from iceshelves.images.build.normalise import normalise
from iceshelves.images.build.placing import place
from iceshelves.images.build.scratch import unpacked_size

EPOCH = 1_767_323_040


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree whose user ``web`` is whoever runs the tests."""
    etc = tmp_path / "tree/etc"
    etc.mkdir(parents=True)
    (etc / "passwd").write_text(f"web:x:{os.getuid()}:{os.getgid()}::/srv:/bin/sh\nbroken\n")
    (etc / "group").write_text(f"web:x:{os.getgid()}:\n")
    return tmp_path / "tree"


def test_a_file_gets_its_content_and_mode_and_replaces_what_was_there(tree: Path) -> None:
    (tree / "etc/motd").symlink_to("/etc/shadow")
    place(
        tree, [File("/etc/motd", b"new", 0o640, "web", "web"), File("/opt/a/b/c", b"", 0o755, "web", "web")]
    )
    assert (tree / "etc/motd").read_bytes() == b"new"
    assert not (tree / "etc/motd").is_symlink()
    assert (tree / "etc/motd").stat().st_mode & 0o7777 == 0o640
    assert (tree / "opt/a/b/c").stat().st_mode & 0o7777 == 0o755
    assert sorted(path.name for path in (tree / "etc").iterdir()) == ["group", "motd", "passwd"]


@pytest.mark.parametrize(
    "file",
    [
        File("/etc/x", b"", owner="nobody-here", group="web"),
        File("/etc/x", b"", owner="web", group="nobody-here"),
        File("/run/x", b"", owner="web", group="web"),
        File("/proc/x", b"", owner="web", group="web"),
        File("/etc/passwd/x", b"", owner="web", group="web"),
        File("/etc", b"", owner="web", group="web"),
    ],
)
def test_a_file_that_cannot_be_placed_is_refused(tree: Path, file: File) -> None:
    with pytest.raises(InvalidInput) as refused:
        place(tree, [file])
    assert refused.value.code == "file_unplaceable"


def write(tree: Path, *names: str) -> None:
    for name in names:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("x")


def test_traces_of_a_build_go_and_what_daemons_need_stays(tree: Path) -> None:
    gone = (
        "var/log/nginx/access.log", "var/log/dpkg.log", "var/lib/apt/lists/deb.debian.org_Packages",
        "var/cache/apt/archives/x.deb", "var/cache/ldconfig/aux-cache", "var/lib/dpkg/status-old",
        "var/lib/dpkg/lock-frontend", "etc/ssh/ssh_host_rsa_key", "etc/ssh/ssh_host_rsa_key.pub",
        "var/lib/dbus/machine-id", "etc/passwd-", "usr/sbin/policy-rc.d", "etc/hostname", "tmp/x",
        "usr/lib/python3/__pycache__/a.pyc", "usr/share/doc/nginx/README", "usr/share/man/man1/ls.1",
        "root/.bash_history", "var/lib/systemd/random-seed", "var/cache/debconf/config.dat-old",
    )  # fmt: skip
    kept = (
        "usr/share/doc/nginx/copyright", "var/lib/dpkg/status", "var/cache/debconf/config.dat",
        "var/lib/redis/dump.rdb", "usr/lib/python3/a.py", "etc/ssh/sshd_config", "root/.bashrc",
    )  # fmt: skip
    write(tree, *gone, *kept)
    (tree / "var/log/journal").symlink_to("/etc")
    normalise(tree, EPOCH)
    assert [name for name in gone if (tree / name).exists()] == []
    assert [name for name in kept if not (tree / name).exists()] == []
    assert (tree / "var/log/nginx").is_dir()
    assert (tree / "etc/machine-id").read_bytes() == b""
    assert (tree / "etc/passwd").exists()


def test_a_link_in_place_of_a_folder_is_not_followed(tree: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    write(outside, "precious")
    (tree / "var").mkdir()
    for name in ("var/log", "tmp", "usr"):
        (tree / name).symlink_to(outside)
    normalise(tree, EPOCH)
    assert (outside / "precious").exists()


def test_accounts_do_not_tell_the_day_of_the_build(tree: Path) -> None:
    shadow = tree / "etc/shadow"
    shadow.write_text("root:*:20000:0:99999:7:::\nweb:!:20412::::::\nodd\n")
    shadow.chmod(0o640)
    normalise(tree, EPOCH)
    assert shadow.read_text() == "root:*:20455:0:99999:7:::\nweb:!:20455::::::\nodd\n"
    assert shadow.stat().st_mode & 0o777 == 0o640


def test_only_later_times_are_clamped_links_included(tree: Path) -> None:
    old, new = tree / "etc/old", tree / "etc/new"
    write(tree, "etc/old", "etc/new")
    os.utime(old, (100, 100))
    (tree / "link").symlink_to("etc")
    (tree / "hanging").symlink_to("nowhere")
    clamp(tree, EPOCH)
    assert old.stat().st_mtime == 100
    for path in (new, tree, tree / "etc", tree / "link", tree / "hanging"):
        assert path.lstat().st_mtime == EPOCH


def test_a_file_of_many_names_counts_once(tree: Path) -> None:
    (tree / "a").write_bytes(bytes(1000))
    before = unpacked_size(tree)
    (tree / "b").hardlink_to(tree / "a")
    (tree / "c").symlink_to("/etc/passwd")
    assert unpacked_size(tree) - before == len("/etc/passwd")
