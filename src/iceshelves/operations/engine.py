"""The engine port: running an operation so that it survives the death of whoever runs it.

A workflow is one coroutine function over an operation's id.  Whatever it does to the world it does through
its :class:`Journal`: work that the journal has recorded is not done again, its recorded result is returned.
Work that was cut off before it was recorded is done again, so it must look at what is before it acts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

Json = dict[str, Any]
Work = Callable[[], Awaitable[Json]]


class Journal(Protocol):
    """The durable record of one workflow."""

    async def once(self, name: str, work: Work) -> Json:
        """The recorded result of ``name``, or that of doing ``work`` now, recorded before it is returned.

        A workflow must ask for the same names in the same order whenever the results are the same.
        """
        ...


Workflow = Callable[[Journal, str], Awaitable[None]]


class Engine(Protocol):
    """Runs workflows, one per operation id."""

    async def start(self, workflow: Workflow) -> None:
        """Begin to run, first of all what was cut off before."""
        ...

    async def submit(self, operation_id: str) -> None:
        """Run the workflow for ``operation_id``; asked twice, it runs once."""
        ...

    async def known(self, operation_ids: Sequence[str]) -> dict[str, bool]:
        """Those of ``operation_ids`` that were submitted, and whether they still go on."""
        ...

    async def forget(self, operation_ids: Sequence[str]) -> None:
        """Drop the records of ended workflows."""
        ...

    async def stop(self) -> None:
        """Interrupt everything where it is; it goes on at the next start, here or elsewhere."""
        ...
