"""The cache of blocks gives back what it was given, or nothing; it stays within its limit."""

from __future__ import annotations

import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from iceshelves.images.squashfs import BlockCache

KEY = bytes(range(32))


def test_what_is_put_is_got(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path / "not" / "there yet")
    assert cache.get(KEY) is None
    cache.put(KEY, b"block")
    assert cache.get(KEY) == b"block"
    cache.put(KEY, b"")
    assert cache.get(KEY) == b""
    assert BlockCache(tmp_path).get(KEY) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: data[:-1] + b"X",
        lambda data: b"X" + data[1:],
    ],
)
def test_a_damaged_block_is_not_believed(damage: object, tmp_path: Path) -> None:
    cache = BlockCache(tmp_path)
    cache.put(KEY, b"block")
    (path,) = tmp_path.glob("*/*")
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    assert cache.get(KEY) is None
    cache.put(KEY, b"block")
    assert cache.get(KEY) == b"block"


def test_what_was_not_used_the_longest_goes_first(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, limit=10_500)
    keys = [bytes([number]) * 32 for number in range(12)]
    for age, key in enumerate(reversed(keys)):
        cache.put(key, bytes(964))  # with its header 1,000 bytes
        os.utime(tmp_path / key.hex()[:2] / key.hex(), (age, age))
    assert cache.get(keys[-1]) is not None, "used now, so no longer the oldest"
    assert cache.trim() == 3000
    assert [key[0] for key in keys if cache.get(key) is None] == [8, 9, 10]
    assert cache.trim() == 0


def test_abandoned_drafts_go_and_foreign_files_stay(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, limit=0)
    cache.put(KEY, b"block")
    (path,) = tmp_path.glob("*/*")
    old, new, foreign = (path.with_name(f"{path.name}.{'0' * 16}"), path.with_name(f"{path.name}.{'1' * 16}"),
                         path.with_name("foreign"))  # fmt: skip
    for each in (old, new, foreign):
        each.touch()
    hour_ago = time.time() - 3700
    os.utime(old, (hour_ago, hour_ago))
    cache.trim()
    assert sorted(tmp_path.glob("*/*")) == sorted([new, foreign])


def test_a_folder_that_cannot_be_used_is_done_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"not a folder")
    cache = BlockCache(tmp_path / "file")
    cache.put(KEY, b"block")
    assert cache.get(KEY) is None
    assert "cannot be cached" in caplog.text


def _hammer(folder: Path) -> int:
    cache = BlockCache(folder, limit=20_000)
    wrong = 0
    for turn in range(300):
        key = bytes([turn % 40]) * 32
        found = cache.get(key)
        wrong += found not in {None, key * 30}
        cache.put(key, key * 30)
        if turn % 50 == 0:
            cache.trim()
    return wrong


def test_several_processes_at_once(tmp_path: Path) -> None:
    with ProcessPoolExecutor(3) as pool:
        assert sum(pool.map(_hammer, [tmp_path] * 3)) == 0
    BlockCache(tmp_path, limit=20_000).trim()
    assert sum(path.stat().st_size for path in tmp_path.glob("*/*")) <= 20_000
