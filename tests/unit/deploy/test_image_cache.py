"""The cache of images: one download for all who ask, read as it grows, nothing damaged as a whole."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from iceshelves.core.errors import Failed, IceShelvesError, Temporary
from iceshelves.deploy.image_cache import Blob, ImageCache, Item

DATA = bytes(range(256)) * 40


class Origin:
    """Where a file comes from, chunk by chunk, as the test lets it."""

    def __init__(self, data: bytes = DATA, error: Exception | None = None) -> None:
        self.data = data
        self.error = error
        self.opened = 0
        self.gate = asyncio.Event()
        self.gate.set()

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[AsyncIterator[bytes]]:
        self.opened += 1
        yield self._chunks()

    async def _chunks(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self.data), 1000):
            yield self.data[start : start + 1000]
            await self.gate.wait()
        if self.error is not None:
            raise self.error


def item_of(data: bytes = DATA) -> Item:
    return Item(len(data), hashlib.sha256(data).hexdigest())


async def read(blob: Blob, start: int = 0, end: int | None = None) -> bytes:
    return b"".join([data async for data in await blob.opened(start, end or blob.size)])


async def collect(blob: Blob, into: list[bytes]) -> None:
    async for data in await blob.opened(0, blob.size):
        into.append(data)


async def settled(cache: ImageCache) -> None:
    while cache._tasks:
        await asyncio.sleep(0.001)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_many_ask_and_one_download_answers(tmp_path: Path) -> None:
    async def story() -> None:
        cache, origin = ImageCache(tmp_path / "images", 10**6), Origin()
        origin.gate.clear()
        blobs = await asyncio.gather(*(cache.get(item_of(), origin) for _ in range(5)))
        readers = [asyncio.create_task(read(blob)) for blob in blobs]
        part = asyncio.create_task(read(blobs[0], 100, 300))
        assert await part == DATA[100:300], "what is there can be read before the rest is"
        assert not any(reader.done() for reader in readers)
        origin.gate.set()
        assert await asyncio.gather(*readers) == [DATA] * 5
        late = blobs[0]  # held since before it was whole
        await settled(cache)
        assert await read(late) == DATA
        assert await read(await cache.get(item_of(), origin), 5000) == DATA[5000:]
        assert origin.opened == 1
        assert files(tmp_path / "images") == [item_of().sha256]

    asyncio.run(story())


@pytest.mark.parametrize("sent", [DATA[:-1], DATA + b"x", DATA[:-1] + b"x", b""])
def test_a_damaged_file_is_never_read_whole(tmp_path: Path, sent: bytes) -> None:
    async def story() -> None:
        cache = ImageCache(tmp_path / "images", 10**6)
        blob = await cache.get(item_of(), Origin(sent))
        got: list[bytes] = []
        with pytest.raises(Failed) as refused:
            await collect(blob, got)
        assert refused.value.code == "image_damaged"
        assert sum(map(len, got)) < len(DATA)
        await settled(cache)
        assert files(tmp_path / "images") == []
        assert await read(await cache.get(item_of(), Origin())) == DATA, "the next one begins anew"

    asyncio.run(story())


def test_what_breaks_off_is_told_to_all(tmp_path: Path) -> None:
    async def story() -> None:
        cache = ImageCache(tmp_path / "images", 10**6)
        away = Temporary("away", code="image_server_unreachable")
        blob = await cache.get(item_of(), Origin(DATA[:3000], away))
        found = await asyncio.gather(read(blob), read(blob, 9000), return_exceptions=True)
        assert list(found) == [away, away]
        origin = Origin()
        origin.gate.clear()
        blob = await cache.get(item_of(), origin)
        readers = [asyncio.create_task(read(blob))]
        unbegun = await cache.get(item_of(b"other"), Origin(b"other"))
        readers.append(asyncio.create_task(read(unbegun)))
        await cache.close()
        for reader in readers:
            with pytest.raises(IceShelvesError, match="broken off"):
                await reader
        assert files(tmp_path / "images") == []

    asyncio.run(story())


def test_what_was_not_asked_for_the_longest_makes_room(tmp_path: Path) -> None:
    async def story() -> None:
        folder = tmp_path / "images"
        cache = ImageCache(folder, 3 * len(DATA))
        kinds = [bytes([number]) * len(DATA) for number in range(4)]
        for age, data in enumerate(kinds[:3]):
            await read(await cache.get(item_of(data), Origin(data)))
            await settled(cache)
            os.utime(folder / item_of(data).sha256, (1000 + age, 1000 + age))
        await cache.get(item_of(kinds[0]), Origin(kinds[0]))  # used again, so it is the newest
        await read(await cache.get(item_of(kinds[3]), Origin(kinds[3])))
        await settled(cache)
        assert files(folder) == sorted(item_of(kinds[number]).sha256 for number in (0, 2, 3))
        with pytest.raises(Failed) as refused:
            await cache.get(Item(3 * len(DATA) + 1, "0" * 64), Origin())
        assert refused.value.code == "image_too_large"

    asyncio.run(story())


def test_what_a_killed_server_left_is_swept_away(tmp_path: Path) -> None:
    async def story() -> None:
        folder = tmp_path / "images"
        folder.mkdir()
        (folder / ("0" * 64 + ".part")).write_bytes(b"half")
        (folder / item_of().sha256).write_bytes(b"cut by a full disk")
        cache = ImageCache(folder, 10**6)
        assert await read(await cache.get(item_of(), Origin())) == DATA
        await settled(cache)
        assert files(folder) == [item_of().sha256]

    asyncio.run(story())


def test_a_disk_that_cannot_be_used(tmp_path: Path) -> None:
    async def story() -> None:
        (tmp_path / "file").write_text("")
        cache = ImageCache(tmp_path / "file" / "images", 10**6)
        with pytest.raises(Temporary) as refused:
            await read(await cache.get(item_of(), Origin()))
        assert refused.value.code == "image_cache_unusable"

    asyncio.run(story())
