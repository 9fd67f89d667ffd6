"""Images: the same bytes for the same description, whole or not there, and nothing that they cannot hold."""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pytest

from iceshelves.core.errors import Conflict, IceShelvesError, InvalidInput
from iceshelves.images.squashfs import (
    BlockCache,
    BlockDevice,
    Bytes,
    Directory,
    Entry,
    Fifo,
    File,
    Gzip,
    HardLink,
    Options,
    Symlink,
    Xz,
    layout,
    write_squashfs,
)
from iceshelves.images.squashfs.inodes import Inodes, Owners
from iceshelves.images.squashfs.layout import NONE
from iceshelves.images.squashfs.nodes import build
from iceshelves.images.squashfs.packing import Stored
from iceshelves.images.squashfs.reader import names, read_superblock

SMALL = 4096


def text(size: int, seed: int = 0) -> bytes:
    """Bytes that compress, but not to nothing."""
    source = random.Random(seed)
    return b" ".join(b"%d" % source.randrange(500) for _ in range(size))[:size]


def tree() -> list[Entry]:
    return [
        Entry("/", Directory(), mode=0o755),
        Entry("/etc", Directory()),
        Entry("/etc/hosts", File(Bytes(b"127.0.0.1 localhost\n")), mode=0o644, xattrs={"user.a": b"1"}),
        Entry("/etc/same", File(Bytes(text(9000))), mode=0o600, uid=1000, gid=100, mtime=7),
        Entry("/etc/big", File(Bytes(text(9000))), mode=0o644),
        Entry("/etc/link", HardLink("/etc/hosts")),
        Entry("/etc/zeros", File(Bytes(bytes(3 * SMALL + 1)))),
        Entry("/etc/random", File(Bytes(random.Random(1).randbytes(5000)))),
        Entry("/lib", Symlink("usr/lib"), mode=0o777),
        Entry("/pipe", Fifo()),
        Entry("/disk", BlockDevice(8, 300)),
    ]


def options(**changes: object) -> Options:
    return Options(**{"compressor": Gzip(), "block_size": SMALL, "threads": 2} | changes)  # type: ignore[arg-type]


def written(path: Path, entries: Sequence[Entry], chosen: Options | None = None) -> bytes:
    write_squashfs(entries, path, chosen or options())
    return path.read_bytes()


def test_order_threads_and_cache_change_no_byte(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path / "cache")
    first = written(tmp_path / "a", tree(), options(threads=1))
    shuffled = random.Random(3).sample(tree(), len(tree()))
    assert written(tmp_path / "b", shuffled, options(threads=4)) == first
    assert written(tmp_path / "c", tree(), options(cache=cache)) == first
    again = write_squashfs(tree(), tmp_path / "d", options(cache=cache))
    assert again.cached == again.blocks > 3
    assert (tmp_path / "d").read_bytes() == first


def test_the_cache_is_not_mixed_up_between_settings(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path / "cache")
    for chosen in (Gzip(), Gzip(1), Xz(0), Xz(1)):
        fresh = written(tmp_path / "fresh", tree(), options(compressor=chosen))
        assert written(tmp_path / "cached", tree(), options(compressor=chosen, cache=cache)) == fresh


def test_superblock_and_names(tmp_path: Path) -> None:
    path = tmp_path / "image"
    result = write_squashfs(tree(), path, options(time=1234))
    superblock = read_superblock(path)
    assert (superblock.time, superblock.block_size, superblock.compressor) == (1234, SMALL, 1)
    assert superblock.inodes == result.inodes == len(tree()) - 1, "a hard link has no inode of its own"
    assert result.size == path.stat().st_size
    assert result.size % 4096 == 0
    assert sorted(names(path)) == sorted(entry.path for entry in tree() if entry.path != "/")


def test_equal_files_are_stored_once_and_zeros_not_at_all(tmp_path: Path) -> None:
    data = random.Random(5).randbytes(40 * SMALL)
    once = len(written(tmp_path / "a", [Entry("/a", File(Bytes(data)))]))
    twice = len(written(tmp_path / "b", [Entry("/a", File(Bytes(data))), Entry("/b", File(Bytes(data)))]))
    zeros = len(written(tmp_path / "c", [Entry("/a", File(Bytes(bytes(len(data)))))]))
    assert once > len(data) > zeros
    assert twice - once <= 4096


def test_an_empty_tree(tmp_path: Path) -> None:
    result = write_squashfs([], tmp_path / "image")
    assert (result.inodes, result.blocks) == (1, 0)
    assert list(names(tmp_path / "image")) == []


def test_long_listings_are_read_back(tmp_path: Path) -> None:
    entries = [Entry(f"/{number:05}-{'x' * (number % 200)}", Fifo()) for number in range(3000)]
    path = tmp_path / "image"
    write_squashfs(entries, path, options(compressor=Gzip(1)))
    assert list(names(path)) == [entry.path for entry in entries], "in the order of their bytes"


def test_neighbours_in_a_listing_whose_numbers_are_far_apart(tmp_path: Path) -> None:
    """Directories take numbers, but no room between files: these two are in one block of inodes."""
    folders = [Entry(f"/d/{number}", Directory()) for number in range(33_000)]
    entries = [Entry("/a", Fifo()), Entry("/d", Directory()), *folders, Entry("/z", Directory())]
    entries += [Entry("/z/link", HardLink("/a")), Entry("/z/own", Fifo())]
    path = tmp_path / "image"
    write_squashfs(entries, path, options(compressor=Gzip(0)))
    assert sum(1 for _ in names(path)) == len(entries)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (Entry("relative", Fifo()), "no absolute path"),
        (Entry("/a/../b", Fifo()), "impossible part"),
        (Entry("/a//b", Fifo()), "impossible part"),
        (Entry("/a\0", Fifo()), "impossible part"),
        (Entry("/" + "ä" * 128, Fifo()), "255 bytes"),
        (Entry("/\ud800", Fifo()), "not text"),
        (Entry("/etc", Fifo()), "twice"),
        (Entry("/none/below", Fifo()), "was not given"),
        (Entry("/etc/hosts/below", Fifo()), "was not given"),
        (Entry("/l", HardLink("/none")), "no file"),
        (Entry("/l", HardLink("/etc")), "no file"),
        (Entry("/l", HardLink("/etc/link")), "no file"),
        (Entry("/l", Symlink("")), "points to nothing"),
        (Entry("/l", Symlink("x" * 4096)), "points to nothing"),
        (Entry("/d", BlockDevice(4096, 0)), "impossible number"),
        (Entry("/f", Fifo(), mode=0o10000), "permission bits"),
        (Entry("/f", Fifo(), uid=2**32 - 1), "owner"),
        (Entry("/f", Fifo(), mtime=-1), "1970"),
        (Entry("/f", Fifo(), xattrs={"system.posix_acl_access": b""}), "attribute"),
        (Entry("/f", Fifo(), xattrs={"user.": b""}), "attribute"),
        (Entry("/f", Fifo(), xattrs={"user.a": bytes(65537)}), "attribute"),
    ],
)
def test_what_cannot_be_held_is_refused(entry: Entry, says: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        write_squashfs([*tree(), entry], tmp_path / "image", options())
    assert caught.value.code == "unpackable_file"
    assert says in caught.value.message
    assert list(tmp_path.iterdir()) == []


def test_more_owners_than_can_be_told_apart(tmp_path: Path) -> None:
    entries = [Entry(f"/{number}", Fifo(), uid=number) for number in range(65537)]
    with pytest.raises(InvalidInput) as caught:
        write_squashfs(entries, tmp_path / "image", options(compressor=Gzip(0)))
    assert caught.value.code == "too_many_owners"


def test_files_beyond_four_gigabytes_have_room_for_it() -> None:
    """An image of that size is too much for a test, so the inode alone: its type, start and size."""
    node = build([Entry("/f", File(Bytes(b"")))]).others[0]
    stored = Stored(2**33 + 1, (0,))
    record = Inodes(Owners()).file(node, stored, 2**34, [77], NONE)
    assert struct.unpack_from("<H", record) == (layout.FILE + layout.EXTENDED,)
    assert struct.unpack_from("<QQ", record, 16) == (2**34, 2**33 + 1)
    short = Inodes(Owners()).file(node, Stored(2**32 - 1, (0,)), 2**32 - 1, [77], NONE)
    assert struct.unpack_from("<H", short) == (layout.FILE,)


@pytest.mark.parametrize("size", [0, 2048, 4097, 2**21])
def test_block_sizes(size: int, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        write_squashfs([], tmp_path / "image", Options(block_size=size))
    assert caught.value.code == "invalid_block_size"


@dataclass
class Fickle:
    """A file that is not the same when it is read for the second time."""

    readings: list[bytes]
    size: int

    def open(self) -> BinaryIO:
        return io.BytesIO(self.readings.pop(0))


@pytest.mark.parametrize("size", [1000, 3000])
@pytest.mark.parametrize("second", [lambda data: data[:-1], lambda data: b"y" + data[1:]])
def test_a_file_that_changes_meanwhile(size: int, second: object, tmp_path: Path) -> None:
    data = text(size)
    cache = BlockCache(tmp_path / "cache")
    target = tmp_path / "image"
    target.write_bytes(b"the image before")
    fickle = Fickle([data, second(data)], size)  # type: ignore[operator]
    with pytest.raises(Conflict) as caught:
        write_squashfs([Entry("/f", File(fickle))], target, options(cache=cache))
    assert caught.value.code == "file_changed"
    assert target.read_bytes() == b"the image before"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["image"]
    assert not list((tmp_path / "cache").glob("*/*")), "nothing wrong is remembered"


def damaged(data: bytes, at: int, change: bytes) -> bytes:
    return data[:at] + change + data[at + len(change) :]


def test_a_reader_of_hostile_images(tmp_path: Path) -> None:
    """Whatever a byte of the tables says, the reader ends, with names or with its own error."""
    path = tmp_path / "image"
    data = written(path, tree())
    start = read_superblock(path).inode_table
    source = random.Random(11)
    refused = 0
    for _ in range(400):
        at = source.choice([source.randrange(96), source.randrange(start, len(data))])
        path.write_bytes(damaged(data, at, source.randbytes(source.choice([1, 2, 8]))))
        try:
            list(names(path))
        except IceShelvesError as error:
            assert error.code in {"not_squashfs", "unknown_compressor"}  # noqa: PT017 - most images are fine
            refused += 1
    assert refused > 50


@pytest.mark.parametrize("cut", [0, 50, 96, 5000])
def test_cut_images_are_refused(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(written(path, tree())[:cut])
    with pytest.raises(InvalidInput) as caught:
        read_superblock(path)
    assert caught.value.code == "not_squashfs"


def test_a_directory_within_itself(tmp_path: Path) -> None:
    """The one name in the root leads back to the root."""
    path = tmp_path / "image"
    data = written(path, [Entry("/d", Directory())], options(compressor=Gzip(0)))
    superblock = read_superblock(path)
    name = data.index(b"d", superblock.directory_table)
    root = superblock.root & 0xFFFF
    assert superblock.root == root, "all inodes are in the first block"
    path.write_bytes(damaged(data, name - 8, root.to_bytes(2, "little")))
    with pytest.raises(InvalidInput, match="in two places"):
        list(names(path))
