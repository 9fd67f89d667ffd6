"""The cache's limit: the least recently used goes, what is in use does not."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from iceshelves.images.build.keeping import trim

DEB = "a" * 64


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache with an old base, a new base and a package between them, of 100 bytes each."""
    bases, debs = tmp_path / "bases", tmp_path / "debs/aa"
    debs.mkdir(parents=True)
    for name, used in (("old", 1000), ("new", 3000)):
        (bases / name / "etc").mkdir(parents=True)
        (bases / f"{name}.lock").write_text("100")
        os.utime(bases / f"{name}.lock", (used, used))
    (debs / f"{DEB}.deb").write_bytes(bytes(100))
    (debs / f"{DEB}.control").write_text("Package: a\n")
    os.utime(debs / f"{DEB}.deb", (2000, 2000))
    return tmp_path


def left(cache: Path) -> list[str]:
    paths = [*(cache / "bases").iterdir(), *(cache / "debs/aa").iterdir()]
    return sorted(path.name for path in paths if path.suffix != ".lock")


@pytest.mark.parametrize(
    ("limit", "kept"),
    [
        (300, [f"{DEB}.control", f"{DEB}.deb", "new", "old"]),
        (299, [f"{DEB}.control", f"{DEB}.deb", "new"]),
        (150, ["new"]),
        (1, []),
    ],
)
def test_the_least_recently_used_goes_first(cache: Path, limit: int, kept: list[str]) -> None:
    trim(cache, limit, "0123456789abcdef", lambda _: None)
    assert left(cache) == sorted(kept)


def test_a_base_in_use_stays(cache: Path) -> None:
    with (cache / "bases/old.lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        trim(cache, 1, "0123456789abcdef", lambda _: None)
    assert left(cache) == ["old"]


def test_an_empty_cache_is_no_error(tmp_path: Path) -> None:
    trim(tmp_path, 1, "0123456789abcdef", lambda _: None)
