"""Live events within a process: whoever waits for a topic is woken when it is published.

The bus carries no data.  Who is woken reads the database, so a lost wake-up only delays, and waiting always
has an upper bound: that covers what another server wrote.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterator


class Subscription:
    """One waiting reader.  Lives on the event loop it was made on."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def wake(self) -> None:
        """End the current or the next :meth:`wait`."""
        self._event.set()

    async def wait(self, seconds: float) -> bool:
        """Wait for a publication, at most ``seconds``; whether there was one."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True


class Bus:
    """Topics are strings such as ``operation:<id>``; publishing is safe from every thread."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._readers: dict[str, set[Subscription]] = defaultdict(set)

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Say which loop the readers live on; before that, nothing is published."""
        self._loop = loop

    def publish(self, *topics: str) -> None:
        """Wake the readers of ``topics``."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake, topics)

    def _wake(self, topics: tuple[str, ...]) -> None:
        for topic in topics:
            for reader in self._readers.get(topic, ()):
                reader.wake()

    def wake_all(self) -> None:
        """Wake every reader, whatever it waits for: the server is about to stop."""
        for readers in self._readers.values():
            for reader in readers:
                reader.wake()

    @contextlib.contextmanager
    def subscribe(self, topic: str) -> Iterator[Subscription]:
        """Be woken by ``topic`` until the end of the block."""
        reader = Subscription()
        self._readers[topic].add(reader)
        try:
            yield reader
        finally:
            self._readers[topic].discard(reader)
            if not self._readers[topic]:
                del self._readers[topic]
