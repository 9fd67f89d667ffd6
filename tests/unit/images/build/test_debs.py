"""The cache of packages, with real packages and a mirror in a folder."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from iceshelves.core.errors import Failed, NotFound
from iceshelves.images.build.debs import Debs, newest
from iceshelves.images.build.job import Source
from iceshelves.images.build.lock import Package

pytestmark = pytest.mark.skipif(
    not (shutil.which("dpkg-deb") and Path("/usr/lib/apt/apt-helper").exists()), reason="needs apt and dpkg"
)


def packaged(mirror: Path, name: str, tmp_path: Path) -> Package:
    """A package called ``name`` in a mirror's pool."""
    root = tmp_path / name
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: 1:1.0-1\nArchitecture: all\nMaintainer: A <a@b.c>\nDescription: x\n"
    )
    place = mirror / "pool" / f"{name}_1.0-1_all.deb"
    place.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "--build", root, place],
        check=True,
        capture_output=True,
        env={"PATH": "/usr/bin:/bin", "SOURCE_DATE_EPOCH": "1700000000"},
    )
    content = place.read_bytes()
    return Package(
        name, "1:1.0-1", "all", hashlib.sha256(content).hexdigest(), len(content), f"pool/{place.name}"
    )


@pytest.fixture
def debs(tmp_path: Path) -> Debs:
    return Debs(tmp_path / "debs", "0123456789abcdef")


def source(folder: Path) -> Source:
    return Source(f"file:{folder}", "bookworm")


def test_each_package_comes_from_the_first_mirror_that_has_it(tmp_path: Path, debs: Debs) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    first, second = packaged(one, "first", tmp_path), packaged(two, "second", tmp_path)
    debs.fetch([first, second], (source(one), source(two)), lambda _: None)
    assert debs.lacks([first, second]) == []
    shutil.rmtree(one)
    shutil.rmtree(two)
    debs.fetch([first, second], (), lambda _: None)  # there already: no mirror is asked
    assert [path.name for path in debs.folder.iterdir() if path.name.startswith(".")] == []


def test_what_no_mirror_has_is_named(tmp_path: Path, debs: Debs) -> None:
    mirror = tmp_path / "mirror"
    there = packaged(mirror, "there", tmp_path)
    gone = Package("gone", "2.0", "all", "0" * 64, 10, "pool/gone.deb")
    with pytest.raises(NotFound) as refused:
        debs.fetch([there, gone], (source(mirror),), lambda _: None)
    assert refused.value.code == "packages_gone"
    assert refused.value.details == {"packages": ["gone=2.0"]}


def test_what_a_mirror_gives_in_its_place_is_not_taken(tmp_path: Path, debs: Debs) -> None:
    mirror = tmp_path / "mirror"
    package = packaged(mirror, "app", tmp_path)
    (mirror / package.filename).write_bytes(b"something else")
    with pytest.raises(NotFound):
        debs.fetch([package], (source(mirror),), lambda _: None)
    assert list(debs.folder.glob("??/*")) == []


def test_a_damaged_package_is_fetched_again(tmp_path: Path, debs: Debs) -> None:
    mirror = tmp_path / "mirror"
    package = packaged(mirror, "app", tmp_path)
    debs.fetch([package], (source(mirror),), lambda _: None)
    content = debs.path(package).read_bytes()
    debs.path(package).write_bytes(content[:-1] + b"x")
    debs.fetch([package], (source(mirror),), lambda _: None)
    assert debs.path(package).read_bytes() == content


def test_apt_reads_the_repository_that_is_made_of_them(tmp_path: Path, debs: Debs) -> None:
    mirror, folder = tmp_path / "mirror", tmp_path / "repository"
    package = packaged(mirror, "app", tmp_path)
    debs.fetch([package], (source(mirror),), lambda _: None)
    folder.mkdir()
    debs.repository([package], "bookworm", folder)
    fields = dict(line.split(": ", 1) for line in (folder / "Packages").read_text().splitlines())
    assert (fields["Package"], fields["SHA256"]) == ("app", package.sha256)
    assert fields["Filename"] == f"./debs/{package.sha256[:2]}/{package.sha256}.deb"


def test_the_newest_package_tells_its_time(tmp_path: Path) -> None:
    package = packaged(tmp_path / "mirror", "app", tmp_path)
    assert newest([tmp_path / "mirror" / package.filename]) == 1_700_000_000
    (tmp_path / "no.deb").write_bytes(b"<html>")
    with pytest.raises(Failed):
        newest([tmp_path / "no.deb"])
