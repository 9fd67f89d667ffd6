"""How many operations run at once on one cluster; the others wait their turn, first come first served."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wanted:
    """A slot of a cluster.  What has begun before a restart goes ahead: its deadline is running."""

    cluster_id: int
    limit: int
    begun: bool = False


class Slots:
    """Counted on the event loop of one process.  A cluster's limit is the one that was given last."""

    def __init__(self) -> None:
        self._limits: dict[int, int] = {}
        self._running: dict[int, int] = {}
        self._waiting: dict[int, deque[asyncio.Event]] = {}

    @contextlib.asynccontextmanager
    async def of(self, wanted: Wanted, cancel: asyncio.Event) -> AsyncIterator[None]:
        """Hold one of the cluster's slots.  Who is cancelled need not wait: it will only end itself."""
        cluster_id = wanted.cluster_id
        self._limits[cluster_id] = wanted.limit
        holds = await self._take(wanted, cancel)
        try:
            yield
        finally:
            if holds:
                self._release(cluster_id)

    async def _take(self, wanted: Wanted, cancel: asyncio.Event) -> bool:
        cluster_id = wanted.cluster_id
        queue = self._waiting.setdefault(cluster_id, deque())
        if not queue and self._running.get(cluster_id, 0) < self._limits[cluster_id]:
            self._running[cluster_id] = self._running.get(cluster_id, 0) + 1
            return True
        turn = asyncio.Event()
        if wanted.begun:
            queue.appendleft(turn)
        else:
            queue.append(turn)
        waits = [asyncio.ensure_future(turn.wait()), asyncio.ensure_future(cancel.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            if turn.is_set():
                self._release(cluster_id)
            raise
        finally:
            for wait in waits:
                wait.cancel()
            if not turn.is_set():
                queue.remove(turn)
        return turn.is_set()

    def _release(self, cluster_id: int) -> None:
        self._running[cluster_id] -= 1
        queue = self._waiting.get(cluster_id, deque())
        while queue and self._running[cluster_id] < self._limits[cluster_id]:
            self._running[cluster_id] += 1
            queue.popleft().set()
