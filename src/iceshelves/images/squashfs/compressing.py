"""Blocks compressed by several threads, in order, and taken from the cache where they are there already."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from iceshelves.images.squashfs.cache import BlockCache
from iceshelves.images.squashfs.compressors import Compressor, signature
from iceshelves.images.squashfs.packing import Block


@dataclass(frozen=True, slots=True)
class Squeezed:
    """A block as it is stored: compressed, unless that would be longer.  ``cached``: no work was needed."""

    data: bytes
    compressed: bool
    cached: bool


class Press:
    """Compresses blocks of at most ``block_size`` bytes; the result depends on nothing but these."""

    def __init__(
        self, compressor: Compressor, block_size: int, threads: int, cache: BlockCache | None
    ) -> None:
        self._compressor = compressor
        self._block_size = block_size
        self._threads = threads
        self._cache = cache
        self._signature = b"" if cache is None else signature(compressor, block_size)

    def squeeze_all(self, blocks: Sequence[Block]) -> Iterator[Squeezed]:
        """``blocks`` in their order.  A few are held at a time, whatever their number."""
        waiting: deque[Future[Squeezed]] = deque()
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="squashfs")
        try:
            for block in blocks:
                waiting.append(pool.submit(self.squeeze, block))
                if len(waiting) > 2 * self._threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def squeeze(self, block: Block) -> Squeezed:
        """One block.  Raises :class:`Conflict` when its files are not what they were."""
        if self._cache is None:
            return self._fresh(block.read())
        key = hashlib.sha256(self._signature + block.digest).digest()
        found = self._cache.get(key)
        if found is not None:
            return Squeezed(found or block.read(), compressed=bool(found), cached=True)
        fresh = self._fresh(block.read())
        # That it cannot be made shorter is worth knowing; the block itself is where it came from.
        self._cache.put(key, fresh.data if fresh.compressed else b"")
        return fresh

    def _fresh(self, plain: bytes) -> Squeezed:
        squeezed = self._compressor.compress(plain, self._block_size)
        if len(squeezed) < len(plain):
            return Squeezed(squeezed, compressed=True, cached=False)
        return Squeezed(plain, compressed=False, cached=False)
