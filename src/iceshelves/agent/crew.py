"""The operations that run in this agent, each an execution of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from iceshelves.agent.desk import AgentDesk, DiskJournal, job_of
from iceshelves.agent.disk import Disk
from iceshelves.core.errors import IceShelvesError, Unsupported
from iceshelves.core.log import logger
from iceshelves.deploy.execution import Execution
from iceshelves.deploy.messages import Claim, End
from iceshelves.deploy.plans import Plans
from iceshelves.operations.execution import internal_error
from iceshelves.operations.job import Ending
from iceshelves.operations.states import OperationStatus
from iceshelves.providers.base import Provider

log: Final = logger(__name__)


class Crew:
    """Lives on the event loop.  ``wake`` has the server told soon."""

    def __init__(
        self, disk: Disk, provider: Callable[[], Awaitable[Provider]], wake: Callable[[], None]
    ) -> None:
        self._disk = disk
        self._provider = provider
        self._wake = wake
        self._desks: dict[str, AgentDesk] = {}
        self._cancels: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._plans = Plans()

    @property
    def busy(self) -> bool:
        """Whether anything runs."""
        return bool(self._tasks)

    def take(self, claim: Claim) -> None:
        """Write a claim down and carry it out; one that runs here already goes on under its new fence."""
        self._disk.hold(claim, time.time() + claim.seconds_left)
        if (desk := self._desks.get(claim.operation)) is not None:
            desk.fence = claim.fence
        elif claim.operation not in self._tasks:
            self._start(claim)

    def go_on(self) -> None:
        """Take up what is held and does not run: it was cut off, by a kill or by a fault of our own."""
        for operation in self._disk.held():
            claim = self._disk.claim(operation)
            if claim is not None and operation not in self._tasks:
                self._start(claim)

    def cancel(self, operation: str) -> None:
        """Interrupt what runs; what was made is undone."""
        self._disk.cancel(operation)
        if (event := self._cancels.get(operation)) is not None:
            event.set()

    def decide(self, operation: str, verdict: bool) -> None:
        """The server's answer to the end of an operation."""
        if (desk := self._desks.get(operation)) is not None:
            desk.decide(verdict)
        elif verdict:
            self._disk.forget(operation)

    def drop(self, operation: str) -> None:
        """Stop where it is and forget: it is not ours any more."""
        log.warning("operation %s is not this agent's any more", operation)
        self._desks.pop(operation, None)
        if (task := self._tasks.get(operation)) is not None:
            task.cancel()
        self._disk.forget(operation)

    async def stop(self) -> None:
        """Interrupt everything where it is; it goes on at the next start."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for desk in self._desks.values():
            desk.flush()

    def _start(self, claim: Claim) -> None:
        task = asyncio.create_task(self._carry_out(claim))
        self._tasks[claim.operation] = task
        task.add_done_callback(lambda task: self._ended(claim.operation, task))

    def _ended(self, operation: str, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("operation %s was interrupted: %r", operation, error)  # it goes on at the next start
        self._tasks.pop(operation, None)
        self._cancels.pop(operation, None)
        if (desk := self._desks.pop(operation, None)) is not None:
            desk.flush()
        self._wake()

    async def _carry_out(self, claim: Claim) -> None:
        cancel = self._cancels[claim.operation] = asyncio.Event()
        try:
            job = job_of(claim)
        except (ValueError, TypeError) as error:
            log.error("operation %s cannot be read: %s", claim.operation, error)
            end = End(claim.fence, OperationStatus.FAILED, _too_old(error).to_json())
            self._disk.put_ending(claim.operation, end)  # forgotten once the server has it
            self._wake()
            return
        desk = self._desks[claim.operation] = AgentDesk(self._disk, job, claim.fence, self._wake)
        log.info("%s %s: begun", job.kind, job.spec.instance)
        try:
            execution = Execution(job, desk, self._provider, cancel, self._plans)
            await execution.run(DiskJournal(self._disk, claim.operation))
        except IceShelvesError as error:
            await self._give_up(desk, claim, error)
        except Exception:
            log.exception("operation %s cannot go on", claim.operation)
            await self._give_up(desk, claim, internal_error(claim.operation))
        self._disk.forget(claim.operation)
        log.info("%s %s: ended", job.kind, job.spec.instance)

    async def _give_up(self, desk: AgentDesk, claim: Claim, error: IceShelvesError) -> None:
        log.error("operation %s is given up: %s", claim.operation, error)
        if self._disk.look_up(claim.operation) is not None:
            await desk.end(Ending(OperationStatus.FAILED, error.to_json(), {}, clean=False))


def _too_old(error: Exception) -> Unsupported:
    return Unsupported(
        f"The cluster's agent does not know all that this deployment is made of: {error}.",
        code="agent_too_old",
        hint="Bring the agent to the version of the server, then retry the deployment.",
    )
