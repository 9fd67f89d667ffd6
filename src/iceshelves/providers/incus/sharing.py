"""Work that many want at once and that is done once: twenty deployments, one download."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from iceshelves.providers.base import Progress

T = TypeVar("T")


@dataclass(slots=True)
class _Shared(Generic[T]):
    task: asyncio.Task[T]
    listeners: list[Progress] = field(default_factory=list)


class SharedWork(Generic[T]):
    """Runs at most one piece of work for each key; the last who loses interest ends it."""

    def __init__(self) -> None:
        self._running: dict[str, _Shared[T]] = {}

    async def join(
        self, key: str, start: Callable[[Progress], Coroutine[Any, Any, T]], progress: Progress
    ) -> T:
        """The outcome of the work of ``key``, which is started if nobody has; ``progress`` hears of it."""
        shared = self._running.get(key) or self._start(key, start)
        shared.listeners.append(progress)
        try:
            return await asyncio.shield(shared.task)
        except asyncio.CancelledError:
            shared.listeners.remove(progress)
            if not shared.listeners:
                self._running.pop(key, None)
                shared.task.cancel()
                await asyncio.wait([shared.task])
            raise

    def _start(self, key: str, start: Callable[[Progress], Coroutine[Any, Any, T]]) -> _Shared[T]:
        listeners: list[Progress] = []

        def tell(fraction: float | None, words: str) -> None:
            for listener in listeners:
                listener(fraction, words)

        shared = self._running[key] = _Shared(asyncio.create_task(start(tell)), listeners)
        shared.task.add_done_callback(lambda task: self._done(key, task))
        return shared

    def _done(self, key: str, task: asyncio.Task[T]) -> None:
        current = self._running.get(key)
        if current is not None and current.task is task:
            del self._running[key]
        if not task.cancelled():
            task.exception()
