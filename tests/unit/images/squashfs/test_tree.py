"""A directory as entries: what is in it, as the rules say, and nothing from elsewhere."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

import pytest

from iceshelves.core.errors import Conflict, InvalidInput
from iceshelves.images.squashfs import (
    Directory,
    Entry,
    Fifo,
    File,
    HardLink,
    Rules,
    Socket,
    Symlink,
    walk,
)


def by_path(root: Path, rules: Rules | None = None) -> dict[str, Entry]:
    return {entry.path: entry for entry in walk(root, rules)}


def content(entry: Entry) -> bytes:
    assert isinstance(entry.kind, File)
    with entry.kind.content.open() as stream:
        return stream.read()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/hosts").write_bytes(b"hosts")
    (root / "etc/hosts").chmod(0o4640)
    os.utime(root / "etc/hosts", (5, 5))
    os.link(root / "etc/hosts", root / "also")
    (root / "out").symlink_to("/etc/passwd")
    (root / "folder").symlink_to("/etc")
    os.mkfifo(root / "pipe")
    os.close(os.open(os.fsencode(root) + b"/\xff", os.O_CREAT))
    return root


def test_what_is_there(root: Path) -> None:
    found = by_path(root)
    assert list(found) == ["/", "/also", "/etc", "/etc/hosts", "/folder", "/out", "/pipe", "/\udcff"]
    assert found["/"].kind == Directory()
    assert found["/etc/hosts"].kind == HardLink("/also")
    assert (found["/also"].mode, found["/also"].mtime, found["/also"].uid) == (0o4640, 5, os.getuid())
    assert content(found["/also"]) == b"hosts"
    assert found["/out"].kind == Symlink("/etc/passwd")
    assert found["/folder"].kind == Symlink("/etc"), "not gone into"
    assert found["/pipe"].kind == Fifo()
    assert content(found["/\udcff"]) == b""


def test_a_socket(root: Path) -> None:
    os.mknod(root / "socket", stat.S_IFSOCK | 0o600)
    assert by_path(root)["/socket"].kind == Socket()


def test_times_are_clamped(root: Path) -> None:
    found = by_path(root, Rules(epoch=1000))
    assert {entry.mtime for path, entry in found.items() if path not in {"/also", "/etc/hosts"}} == {1000}
    assert found["/also"].mtime == 5


def test_left_out_and_replaced(root: Path) -> None:
    found = by_path(root, Rules(left_out={"/etc", "/out"}.__contains__, replaced={"/also": b"other"}))
    assert list(found) == ["/", "/also", "/folder", "/pipe", "/\udcff"]
    assert (content(found["/also"]), found["/also"].mode) == (b"other", 0o4640)


@pytest.mark.parametrize("path", ["/none", "/pipe", "/out"])
def test_only_a_plain_file_is_replaced(path: str, root: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        by_path(root, Rules(replaced={path: b""}))
    assert caught.value.code == "nothing_to_replace"


def test_a_bottomless_tree(root: Path) -> None:
    handle = os.open(root, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d", dir_fd=handle)
        inner = os.open("d", os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = inner
    os.close(handle)
    with pytest.raises(InvalidInput, match="folders deep"):
        by_path(root)


def test_owners_are_shifted(root: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root gives files to others")
    for path in (root, *root.rglob("*")):
        os.chown(path, 100_000, 100_007, follow_symlinks=False)
    found = by_path(root, Rules(shift=100_000))
    assert {(entry.uid, entry.gid) for entry in found.values()} == {(0, 7)}
    with pytest.raises(InvalidInput, match="user namespace"):
        by_path(root, Rules(shift=100_001))


def test_attributes(root: Path) -> None:
    ours = struct.pack("<IIIIII", 0x03000001, 1, 0, 0, 0, 100_000)
    try:
        os.setxattr(root / "also", "user.note", b"kept")
        os.setxattr(root / "also", "user.overlay.opaque", b"y")
        os.setxattr(root / "etc", "trusted.of-this-host", b"x")
        os.setxattr(root / "also", "security.capability", ours)
    except OSError as error:
        pytest.skip(f"this file system has no attributes for us: {error}")
    for path in (root, *root.rglob("*")):
        if path != root / "also":  # chown would take its capabilities away
            os.chown(path, 100_000, 100_000, follow_symlinks=False)
    os.chown(root / "also", 100_000, 100_000)
    os.setxattr(root / "also", "security.capability", ours)
    found = by_path(root, Rules(shift=100_000))
    assert found["/also"].xattrs == {
        "user.note": b"kept",
        "security.capability": b"\x01\0\0\x02" + ours[4:20],
    }
    assert found["/etc"].xattrs == {}
    with pytest.raises(InvalidInput, match="capabilities for the user namespace of 100000"):
        by_path(root)


def test_a_file_that_is_swapped_for_a_link_is_not_followed(root: Path) -> None:
    found = by_path(root)
    (root / "also").unlink()
    (root / "also").symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="symbolic links"):
        content(found["/also"])


def test_a_folder_that_is_swapped_for_a_link_is_not_followed(root: Path, tmp_path: Path) -> None:
    (root / "etc/own").write_bytes(b"own")
    found = by_path(root)
    (root / "etc").rename(tmp_path / "away")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/own").write_bytes(b"not")
    (root / "etc").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Conflict) as caught:
        content(found["/etc/own"])
    assert caught.value.code == "file_changed"
