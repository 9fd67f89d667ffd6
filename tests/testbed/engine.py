"""An engine for tests in which the server carries nothing out; the real one is one for each process."""

from __future__ import annotations

from collections.abc import Sequence

from iceshelves.operations.engine import Workflow


class IdleEngine:
    """Takes operations and leaves them pending."""

    def __init__(self) -> None:
        self.submitted: list[str] = []

    async def start(self, workflow: Workflow) -> None:
        """Nothing begins."""

    async def submit(self, operation_id: str) -> None:
        """It is only noted."""
        self.submitted.append(operation_id)

    async def known(self, operation_ids: Sequence[str]) -> dict[str, bool]:
        """All of them go on."""
        return dict.fromkeys(operation_ids, True)

    async def forget(self, operation_ids: Sequence[str]) -> None:
        """There is no record."""

    async def stop(self) -> None:
        """Nothing goes on."""
