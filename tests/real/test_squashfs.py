"""Our squashfs images, judged by others: the kernel that mounts them, unsquashfs, and a real Incus."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iceshelves.images.metadata import read_metadata, write_metadata
from iceshelves.images.squashfs import (
    BlockCache,
    BlockDevice,
    Bytes,
    CharacterDevice,
    Compressor,
    Directory,
    Entry,
    Fifo,
    File,
    Gzip,
    HardLink,
    Options,
    Rules,
    Socket,
    Symlink,
    Xz,
    walk,
    write_squashfs,
)
from iceshelves.images.squashfs.reader import names
from testbed import images
from testbed.hosts import Host, scratch_directory


@contextlib.contextmanager
def mounted(image: Path, at: Path) -> Iterator[Path]:
    """The image as this machine's kernel shows it."""
    at.mkdir()
    subprocess.run(["mount", "-t", "squashfs", "-o", "loop,ro", image, at], check=True, capture_output=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", at], check=True)
        at.rmdir()


@contextlib.contextmanager
def extracted(image: Path, at: Path) -> Iterator[Path]:
    """The image as unsquashfs unpacks it."""
    command = [
        "unsquashfs",
        "-quiet",
        "-no-progress",
        "-strict-errors",
        "-processors",
        "1",
        "-dest",
        at,
        image,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stderr == ""
    try:
        yield at
    finally:
        shutil.rmtree(at)


def can_mount() -> bool:
    """Whether this machine's kernel has squashfs and loop devices for us."""
    return Path("/dev/loop-control").exists() and "squashfs" in Path("/proc/filesystems").read_text()


Judge = Callable[[Path, Path], contextlib.AbstractContextManager[Path]]


@pytest.fixture(params=[mounted, extracted], ids=["kernel", "unsquashfs"])
def judge(request: pytest.FixtureRequest) -> Judge:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if request.param is mounted and not can_mount():
        pytest.skip("this kernel cannot mount squashfs images")
    if request.param is extracted and not shutil.which("unsquashfs"):
        pytest.skip("not installed: unsquashfs")
    chosen: Judge = request.param
    return chosen


@pytest.fixture
def best_judge() -> Judge:
    """The kernel, which looks names up by the index; else unsquashfs."""
    if os.geteuid() != 0 or not (can_mount() or shutil.which("unsquashfs")):
        pytest.skip("needs root, and a kernel with squashfs or unsquashfs")
    return mounted if can_mount() else extracted


def facts(entry: Entry) -> tuple[object, ...]:
    """What a judge can see of an entry, without names and links."""
    kind = entry.kind
    shape: object = None
    match kind:
        case File(content):
            with content.open() as stream:
                shape = hashlib.file_digest(stream, "sha256").hexdigest() if content.size else ""
        case Symlink(target):
            shape = target
        case BlockDevice(major, minor) | CharacterDevice(major, minor):
            shape = (major, minor)
    return type(kind), shape, entry.mode, entry.uid, entry.gid, entry.mtime, dict(entry.xattrs)


def same_as(entries: list[Entry], found: list[Entry]) -> None:
    """That ``found`` is what was described; of several names of one file, any may be the first."""
    described, seen = resolved(entries), resolved(found)
    assert sorted(seen) == sorted(described)
    for path, group in described.items():
        assert seen[path] == group, path


def resolved(entries: list[Entry]) -> dict[str, tuple[object, ...]]:
    """Facts by path; each name of a file has those of the file, and all names."""
    groups: dict[str, list[str]] = {}
    for entry in entries:
        first = entry.kind.to if isinstance(entry.kind, HardLink) else entry.path
        groups.setdefault(first, []).append(entry.path)
    by_path = {entry.path: entry for entry in entries}
    return {
        path: (facts(by_path[first]), tuple(sorted(group)))
        for first, group in groups.items()
        for path in group
    }


# ---- any tree

parts = st.one_of(
    st.sampled_from(["a", "b", "a-b", "ä", "\udcff", "A", "x" * 255]),
    st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=20),
).filter(lambda name: name not in {".", ".."} and len(name.encode("utf-8", "surrogateescape")) <= 255)
sizes = st.one_of(st.integers(0, 20_000), st.sampled_from([4095, 4096, 4097, 2047, 2048, 8192]))
data = st.builds(
    lambda size, seed, kind: {
        "random": random.Random(seed).randbytes(size),
        "zeros": bytes(size),
        "text": (b"%d " % seed * size)[:size],
        "mixed": (bytes(4096) + random.Random(seed).randbytes(4096) + bytes(size))[:size],
    }[kind],
    sizes,
    st.integers(0, 5),
    st.sampled_from(["random", "zeros", "text", "mixed"]),
)
kinds = st.one_of(
    st.just(Directory()),
    st.just(Directory()),
    st.builds(lambda content: File(Bytes(content)), data),
    st.builds(Symlink, st.one_of(parts, st.just("y" * 4095))),
    st.builds(BlockDevice, st.integers(0, 4095), st.integers(0, 2**20 - 1)),
    st.builds(CharacterDevice, st.integers(0, 4095), st.integers(0, 2**20 - 1)),
    st.just(Fifo()),
    st.just(Socket()),
)
xattrs = st.dictionaries(
    st.sampled_from(["user.a", "user.b", "user." + "c" * 200]), st.binary(max_size=60), max_size=3
)


#: cap_net_raw, permitted and effective, as ping has it
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


@st.composite
def trees(draw: st.DrawFn) -> list[Entry]:
    """A root and up to forty more names, in directories that are there."""
    number = st.integers(0, 2**32 - 2)
    entries = [Entry("/", Directory(), draw(st.integers(0, 0o7777)), draw(number), draw(number), 9)]
    folders, files, taken = [""], [], {"/"}
    for _ in range(draw(st.integers(0, 40))):
        path = f"{draw(st.sampled_from(folders))}/{draw(parts)}"
        if path in taken or len(path.encode("utf-8", "surrogateescape")) > 2000:
            continue
        taken.add(path)
        if files and draw(st.booleans()) and draw(st.booleans()):
            entries.append(Entry(path, HardLink(draw(st.sampled_from(files)))))
            continue
        kind = draw(kinds)
        is_plain = isinstance(kind, File | Directory)
        (folders if isinstance(kind, Directory) else files).append(path)
        mode = 0o777 if isinstance(kind, Symlink) else draw(st.integers(0, 0o7777))
        time = draw(st.integers(0, 2**31 - 1))
        attributes = draw(xattrs) if is_plain else {}  # Linux lets no others have any of the user's
        if isinstance(kind, File) and draw(st.booleans()):
            attributes["security.capability"] = CAPABILITY
        entries.append(Entry(path, kind, mode, draw(number), draw(number), time, attributes))
    return entries


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(entries=trees(), compressor=st.sampled_from([Gzip(), Gzip(0), Xz(0)]))
def test_any_tree(judge: Judge, tmp_path: Path, entries: list[Entry], compressor: Compressor) -> None:
    image = tmp_path / "image"
    write_squashfs(entries, image, Options(compressor, block_size=4096, threads=1))
    with judge(image, tmp_path / "root") as root:
        same_as(entries, list(walk(root)))


# ---- what is large

MANY = 66_000


def test_many_names_and_many_inodes(best_judge: Judge, tmp_path: Path) -> None:
    """More inodes than 16 bits count, more than one index entry, and a link from far away."""
    entries = [Entry("/many", Directory()), Entry("/zz", Directory())]
    entries += [Entry(f"/many/{number:06}", Fifo(), mtime=number) for number in range(MANY)]
    entries += [Entry("/zz/first", HardLink("/many/000000")), Entry("/zz/own", Fifo())]
    image = tmp_path / "image"
    written = write_squashfs(entries, image, Options(Gzip(1)))
    assert written.inodes == MANY + 4
    with best_judge(image, tmp_path / "root") as root:
        listed = sorted(path.name for path in (root / "many").iterdir())
        assert listed == [f"{number:06}" for number in range(MANY)]
        for number in random.Random(1).sample(range(MANY), 3000):  # found by the index, not by reading on
            assert (root / f"many/{number:06}").lstat().st_mtime == number
        assert not (root / "many/0000000").exists()
        assert (root / "zz/first").samefile(root / "many/000000")
        assert (root / "zz/first").stat().st_nlink == 2
        assert (root / "many").stat().st_nlink == 2
    assert sum(1 for _ in names(image)) == MANY + 4


def test_a_huge_sparse_file(best_judge: Judge, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    size = 2**32 + 12_345
    with (tmp_path / "tree/huge").open("wb") as stream:
        stream.truncate(size)
        for place in (5, 2**31, size - 3):
            stream.seek(place)
            stream.write(b"abc")
    os.link(tmp_path / "tree/huge", tmp_path / "tree/also")
    image = tmp_path / "image"
    write_squashfs(walk(tmp_path / "tree"), image)
    assert image.stat().st_size < 100_000
    with best_judge(image, tmp_path / "root") as root, (root / "huge").open("rb") as stream:
        found = os.fstat(stream.fileno())
        assert (found.st_size, found.st_nlink) == (size, 2)
        assert found.st_blocks * 512 < 8 * 2**20, "the holes are holes again"
        for place in (5, 2**31, size - 3):
            assert os.pread(stream.fileno(), 3, place) == b"abc"
            assert os.pread(stream.fileno(), 3, place - 4) == b"\0\0\0"


@pytest.fixture
def debian() -> Iterator[Path]:
    """The root file system of a Debian, in memory where there is room; its parent is for the test."""
    if os.geteuid() != 0 or not can_mount():
        pytest.skip("needs root, and a kernel with squashfs")
    if reason := images.missing_for_debian():
        pytest.skip(f"the Debian image: {reason}")
    _, image = images.debian_files(images.own_suite()[0])
    scratch = scratch_directory("squashfs")
    try:
        with extracted(image, scratch / "debian") as root:
            yield root
    finally:
        shutil.rmtree(scratch)


@pytest.mark.slow
def test_a_debian(debian: Path) -> None:
    """A whole system, file by file; and once more from the cache with one file more."""
    scratch = debian.parent
    fast = Options(Gzip(1), cache=BlockCache(scratch / "cache"))
    rules = Rules(epoch=1_700_000_000)
    first = write_squashfs(walk(debian, rules), scratch / "first", fast)
    assert first.cached == 0
    with mounted(scratch / "first", scratch / "root") as root:
        same_as(list(walk(debian, rules)), list(walk(root)))
    added = [*walk(debian, rules), Entry("/usr/bin/one-more", File(Bytes(os.urandom(5000))))]
    second = write_squashfs(added, scratch / "second", fast)
    assert second.blocks - second.cached <= 5


def test_incus_takes_and_runs_it(incus_host: Host, tmp_path: Path) -> None:
    """The tiny image, unpacked and packed again by us: its metadata, and its root by both compressors."""
    if reason := images.missing_for_tiny():
        pytest.skip(f"the tiny image: {reason}")
    packed, image = images.tiny_files()
    with extracted(image, tmp_path / "root") as root:
        write_squashfs(walk(root), tmp_path / "xz.squashfs")
        write_squashfs(walk(root), tmp_path / "gzip.squashfs", Options(Gzip(), block_size=128 * 1024))
    with subprocess.Popen(["tar", "-xJf", packed, "-C", tmp_path, "templates"]) as unpacking:
        assert unpacking.wait() == 0
    templates = {path.name: path.read_bytes() for path in (tmp_path / "templates").iterdir()}
    metadata = read_metadata(packed)
    write_metadata(tmp_path / "meta.tar.xz", metadata, templates)
    for compressor in ("xz", "gzip"):
        name = f"own-{compressor}-{os.getpid()}"
        incus_host.import_image((tmp_path / "meta.tar.xz", tmp_path / f"{compressor}.squashfs"), name)
        try:
            incus_host.cli("launch", name, name, stdin="")
            assert incus_host.cli("exec", name, "--", "hostname").stdout.strip() == name
            assert (
                incus_host.cli("config", "get", name, "image.os").stdout.strip() == metadata.properties["os"]
            )
        finally:
            incus_host.cli("delete", "--force", name, check=False)
            incus_host.cli("image", "delete", name)
