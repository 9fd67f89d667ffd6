"""Files of images on the server's disk, named by their SHA-256: many agents ask, one download answers.

Whoever asks while a file is on its way reads it as it grows.  Its last byte is given only once the whole was
found to be what its hash says, so nobody can take a damaged file for a whole one.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from iceshelves.core.errors import Failed, IceShelvesError, Temporary
from iceshelves.core.log import logger
from iceshelves.core.threads import in_thread

_CHUNK: Final = 256 * 1024
_DRAFT: Final = ".part"

log: Final = logger(__name__)


@dataclass(frozen=True, slots=True)
class Item:
    """A file as an index names it: its size in bytes, and its SHA-256 in hexadecimal digits."""

    size: int
    sha256: str


#: opens the source of a file, as chunks
Source = Callable[[], AbstractAsyncContextManager[AsyncIterator[bytes]]]


class Blob:
    """A file that is there, or on its way.  Lives on the event loop."""

    def __init__(self, path: Path, size: int, readable: int) -> None:
        self.path = path
        self.size = size
        self._readable = readable
        self._error: IceShelvesError | None = None
        self._changed = asyncio.Event()

    def grow(self, readable: int) -> None:
        """Let readers have the first ``readable`` bytes."""
        if readable > self._readable:
            self._readable = readable
            self._tell()

    def break_off(self, error: IceShelvesError) -> None:
        """End all readers with ``error``."""
        self._error = error
        self._tell()

    async def opened(self, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from ``start`` up to ``end`` (there is at least one), once the first of them is there.

        Raises what the source did, here or while it is read.
        """
        await self._wait_beyond(start)
        return self._read(start, end)

    async def _read(self, start: int, end: int) -> AsyncIterator[bytes]:
        handle = await in_thread(self._open)
        try:
            while start < end:
                await self._wait_beyond(start)
                most = min(end, self._readable) - start
                data = await in_thread(os.pread, handle, min(most, _CHUNK), start)
                if not data:  # somebody has cut the file short
                    raise _stopping()
                start += len(data)
                yield data
        finally:
            os.close(handle)

    def _open(self) -> int:
        for path in (self.path, self.path.with_suffix("")):  # the second once it is whole
            with suppress(FileNotFoundError):
                return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        raise self._error or _stopping()

    async def _wait_beyond(self, place: int) -> None:
        while self._readable <= place:
            if self._error is not None:
                raise self._error
            await self._changed.wait()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class ImageCache:
    """Keeps at most ``limit`` bytes in ``folder``; what was not asked for the longest goes first."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._coming: dict[str, Blob] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def get(self, item: Item, source: Source) -> Blob:
        """The file; what is not there is fetched from ``source``, once for all who ask.

        Raises :class:`Failed` ``image_too_large``.  Reading it raises :class:`Temporary`
        ``image_cache_unusable`` too.
        """
        if (coming := self._coming.get(item.sha256)) is not None:
            return coming
        if item.size > self._limit:
            raise Failed(
                f"An image of {item.size} bytes does not fit into the server's cache.",
                code="image_too_large",
                hint="Give the cache more room with ICESHELVES_IMAGE_CACHE.",
            )
        path = self._folder / item.sha256
        if await in_thread(self._look_up, path, item.size):
            return Blob(path, item.size, item.size)
        if (coming := self._coming.get(item.sha256)) is not None:  # somebody was faster
            return coming
        blob = self._coming[item.sha256] = Blob(path.with_suffix(_DRAFT), item.size, 0)
        task = asyncio.create_task(self._fetch(blob, item, source))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return blob

    async def close(self) -> None:
        """Break off what is on its way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for blob in self._coming.values():  # one that had not even begun
            blob.break_off(_stopping())
        self._coming.clear()

    async def _fetch(self, blob: Blob, item: Item, source: Source) -> None:
        try:
            handle = await in_thread(self._begin, blob.path, dict(self._coming))
            try:
                await _fill(blob, item, handle, source)
            finally:
                os.close(handle)
            await in_thread(os.replace, blob.path, blob.path.with_suffix(""))
            blob.grow(blob.size)
        except IceShelvesError as error:
            self._give_up(blob, error)
        except OSError as error:
            self._give_up(blob, _unusable(error))
        except asyncio.CancelledError:
            self._give_up(blob, _stopping())
            raise
        except Exception:
            log.exception("a download broke off")
            self._give_up(blob, _stopping())
        finally:
            self._coming.pop(item.sha256, None)

    def _give_up(self, blob: Blob, error: IceShelvesError) -> None:
        log.warning("an image's file was not fetched: %s", error)
        with suppress(OSError):  # the next download sweeps it away
            blob.path.unlink()
        blob.break_off(error)

    def _look_up(self, path: Path, size: int) -> bool:
        try:
            if path.stat().st_size != size:
                return False
            os.utime(path)
        except OSError:
            return False
        return True

    def _begin(self, draft: Path, coming: Mapping[str, Blob]) -> int:
        """Make room, and open a new draft; one of a server that was killed is overwritten."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        drafts = {blob.path for blob in coming.values()}
        for stale in self._folder.glob(f"*{_DRAFT}"):
            if stale not in drafts:
                stale.unlink(missing_ok=True)
        kept = [(path.stat(), path) for path in self._folder.iterdir() if path not in drafts]
        total = sum(state.st_size for state, _ in kept) + sum(blob.size for blob in coming.values())
        for state, path in sorted(kept, key=lambda each: each[0].st_mtime):
            if total <= self._limit:
                break
            path.unlink(missing_ok=True)
            total -= state.st_size
        return os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


async def _fill(blob: Blob, item: Item, handle: int, source: Source) -> None:
    digest = hashlib.sha256()
    written = 0

    def write(data: bytes) -> None:
        digest.update(data)
        left = memoryview(data)
        while left:
            left = left[os.write(handle, left) :]

    async with source() as chunks:
        async for data in chunks:
            written += len(data)
            if written > item.size:
                raise _damaged("it is longer than its index says")
            await in_thread(write, data)
            blob.grow(min(written, item.size - 1))
    if written != item.size:
        raise _damaged(f"it ended after {written} of {item.size} bytes")
    if digest.hexdigest() != item.sha256:
        raise _damaged("its hash is not the one that its index says")


def _damaged(why: str) -> Failed:
    return Failed(
        f"The image server sent a damaged file: {why}.",
        code="image_damaged",
        hint="Nothing was kept of it; the next deployment asks for it again.",
    )


def _unusable(error: OSError) -> Temporary:
    return Temporary(
        f"The server's image cache cannot be used: {error.strerror or error}.",
        code="image_cache_unusable",
        hint="Look after the disk that holds the server's data.",
        delay=30.0,
    )


def _stopping() -> Temporary:
    return Temporary("The download was broken off.", code="download_broken_off", delay=5.0)
