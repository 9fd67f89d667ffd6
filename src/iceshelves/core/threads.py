"""Where synchronous work (the database) meets asynchronous (hypervisors, streams): the one crossing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run ``function`` in a thread; the loop goes on meanwhile."""
    return await asyncio.to_thread(function, *args, **kwargs)
