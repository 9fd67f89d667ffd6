"""The daemon's asynchronous work.  Its end comes by the event stream; an operation is never polled.

An operation may end before the answer that names it has been read, so the ends of recent ones are
remembered.  After a gap in the stream each awaited operation is read exactly once.

In a cluster the stream tells the events of the other members too, but not that one of them has died, with
which its operations are gone without an end.  So there the daemon is asked, once in a while, whether it still
knows an operation.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import OrderedDict
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from iceshelves.core.errors import IceShelvesError, NotFound, Temporary
from iceshelves.providers.base import Progress, no_progress
from iceshelves.providers.incus import errors
from iceshelves.providers.incus.client import Call, Client, path
from iceshelves.providers.incus.events import EventStream

_log = logging.getLogger(__name__)

_REMEMBERED: Final = 1024
#: seconds of waiting in a cluster after which an operation is looked at
LOOK_AFTER: Final = 10.0
# Status codes of doc/rest-api.md: below 200 it goes on, 200 success, 400 failure, 401 cancelled.
_SUCCESS, _CANCELLED = 200, 401


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation as last told: ``metadata`` is its own, ``resources`` names what it works on."""

    id: str
    kind: str
    status: int
    words: str
    may_cancel: bool
    metadata: Mapping[str, Any]
    resources: Mapping[str, Any]
    #: the cluster member that does it; empty on a single server
    member: str = ""

    @property
    def ended(self) -> bool:
        return self.status >= _SUCCESS


@dataclass(frozen=True, slots=True)
class Begun:
    """A started operation, and how often the event stream had been opened when it was started."""

    operation: Operation
    connections: int


@dataclass(frozen=True, slots=True)
class _Waiter:
    progress: Progress
    end: asyncio.Future[Operation]


class Operations:
    """Starts operations and waits for their ends."""

    def __init__(self, client: Client, events: EventStream) -> None:
        self._client = client
        self._events = events
        self._ended: OrderedDict[str, Operation] = OrderedDict()
        self._waiters: dict[str, list[_Waiter]] = {}
        self._unwanted: set[str] = set()
        self._chores: set[asyncio.Task[None]] = set()
        events.listen(self)

    async def run(self, call: Call, progress: Progress = no_progress) -> Operation:
        """Send ``call`` and wait for the end of the operation that it starts.

        Raises what the operation failed with.  Cancelling leaves the operation to the daemon.
        """
        return await self.finish(await self.begin(call), progress)

    async def run_cancellable(self, call: Call, progress: Progress = no_progress) -> Operation:
        """As :meth:`run`, but cancelling also cancels it on the hypervisor, as soon as that is allowed."""
        begun = await self.begin(call)
        try:
            return await self.finish(begun, progress)
        except asyncio.CancelledError:
            self._abandon(begun.operation)
            raise

    async def begin(self, call: Call) -> Begun:
        """Send ``call`` with the stream open, so that no end is missed.  A sync answer has ended at once."""
        await self._events.ready()
        connections = self._events.connections
        answer = await self._client.call(call)
        if not answer.is_operation:
            done = Operation("", "task", _SUCCESS, "", False, {}, {})
            return Begun(done, connections)
        return Begun(self._read(answer.metadata), connections)

    async def finish(self, begun: Begun, progress: Progress = no_progress) -> Operation:
        """Wait for the end.  Raises what it failed with, or :class:`Temporary` ``operation_lost``."""
        end = await self.await_end(begun, progress)
        if end.status == _SUCCESS:
            return end
        raise errors.cancelled(end.words) if end.status == _CANCELLED else errors.failure(end.words)

    async def await_end(self, begun: Begun, progress: Progress = no_progress) -> Operation:
        """The operation once it has ended, however; :class:`Temporary` ``operation_lost`` if nobody knows."""
        operation = begun.operation
        if operation.ended:
            return operation
        return self._ended.get(operation.id) or await self._wait(begun, progress)

    async def settle(self, instance: str) -> None:
        """Wait for all that the daemon still does with ``instance``, however it ends.

        That is the work of a killed predecessor, or of somebody else; programs that run in the guest and
        consoles are no such work.
        """
        await self._events.ready()
        connections = self._events.connections
        listing = await self._client.get(path("operations"), recursion="1")
        running = listing.get("running") if isinstance(listing, dict) else None
        for raw in running if isinstance(running, list) else []:
            operation = self._read(raw)
            if operation.kind == "task" and _works_on(operation, instance, self._client.project):
                try:
                    await self.await_end(Begun(operation, connections))
                except Temporary as error:
                    if error.code != "operation_lost":
                        raise

    # Listener of the event stream

    def on_event(self, event: dict[str, Any]) -> None:
        if event.get("type") != "operation":
            return
        try:
            operation = self._read(event["metadata"])
        except IceShelvesError:
            _log.warning("an event about an operation could not be read")
            return
        if operation.ended:
            self._end(operation)
            return
        fraction, words = _progress_of(operation)
        for waiter in list(self._waiters.get(operation.id, ())) if words else ():
            try:
                waiter.progress(fraction, words)
            except Exception as error:  # noqa: BLE001 (the caller's own fault goes to that caller alone)
                waiter.end.set_exception(error)
                self._leave(operation.id, waiter)
        if operation.id in self._unwanted and operation.may_cancel:
            self._chore(self._cancel(operation.id))

    def on_gap(self) -> None:
        self._unwanted.clear()
        for identity in list(self._waiters):
            self._chore(self._look_once(identity))

    def on_lost(self, error: Temporary) -> None:
        for identity in list(self._waiters):
            self._give_up(identity, error)

    async def close(self) -> None:
        """Drop all chores."""
        for chore in list(self._chores):
            chore.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)

    async def _wait(self, begun: Begun, progress: Progress) -> Operation:
        identity = begun.operation.id
        waiter = _Waiter(progress, asyncio.get_running_loop().create_future())
        self._waiters.setdefault(identity, []).append(waiter)
        if begun.connections != self._events.connections:
            # The stream was cut between the call and now: its end may have passed unseen.
            self._chore(self._look_once(identity))
        try:
            while begun.operation.member and not waiter.end.done():
                await asyncio.wait({waiter.end}, timeout=LOOK_AFTER)
                if not waiter.end.done():
                    await self._look_once(identity)
            return await waiter.end
        except asyncio.CancelledError:
            self._leave(identity, waiter)
            raise

    def _leave(self, identity: str, waiter: _Waiter) -> None:
        waiting = self._waiters.get(identity, [])
        if waiter in waiting:
            waiting.remove(waiter)
        if not waiting:
            self._waiters.pop(identity, None)

    def _end(self, operation: Operation) -> None:
        self._unwanted.discard(operation.id)
        self._ended[operation.id] = operation
        while len(self._ended) > _REMEMBERED:
            self._ended.popitem(last=False)
        for waiter in self._waiters.pop(operation.id, ()):
            if not waiter.end.done():
                waiter.end.set_result(operation)

    def _give_up(self, identity: str, error: IceShelvesError) -> None:
        for waiter in self._waiters.pop(identity, ()):
            if not waiter.end.done():
                waiter.end.set_exception(error)

    async def _look_once(self, identity: str) -> None:
        try:
            operation = self._read(await self._client.get(path("operations", identity)))
        except NotFound:
            # Ended operations are forgotten after seconds, all of them when the daemon restarts.
            self._give_up(
                identity,
                Temporary(
                    "The hypervisor no longer knows how its operation ended.",
                    code="operation_lost",
                    delay=0.1,
                ),
            )
        except IceShelvesError as error:
            self._give_up(identity, error)
        else:
            if operation.ended:
                self._end(operation)

    def _abandon(self, operation: Operation) -> None:
        if not operation.ended and operation.id not in self._ended:
            self._unwanted.add(operation.id)
            self._chore(self._cancel(operation.id))

    async def _cancel(self, identity: str) -> None:
        try:
            await self._client.call(Call("DELETE", path("operations", identity)))
        except IceShelvesError as error:
            # Not cancellable yet: the next event that says it may be cancelled tries again.
            _log.debug("operation %s is not cancelled yet: %s", identity, error.message)

    def _chore(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    def _read(self, raw: Any) -> Operation:
        value = self._client.as_object(raw, "an operation")
        identity, status = value.get("id"), value.get("status_code")
        if not isinstance(identity, str) or not isinstance(status, int):
            raise errors.bad_answer(self._client.where, "an operation without id or status")
        return Operation(
            id=identity,
            kind=str(value.get("class", "")),
            status=status,
            words=str(value.get("err", "")),
            may_cancel=value.get("may_cancel") is True,
            metadata=value.get("metadata") or {},
            resources=value.get("resources") or {},
            member=_member_of(value.get("location")),
        )


def _member_of(location: Any) -> str:
    """The member in a ``location``, which reads ``none`` on a single server."""
    return location if isinstance(location, str) and location != "none" else ""


def _works_on(operation: Operation, instance: str, project: str) -> bool:
    """Whether ``operation`` names ``instance`` of ``project``: ``/1.0/instances/NAME[?project=P]``."""
    for listed in operation.resources.values():
        for resource in listed if isinstance(listed, list) else []:
            parts = urlsplit(str(resource))
            of_project = parse_qs(parts.query).get("project", ["default"])[-1]
            if of_project == project and unquote(parts.path.rsplit("/", 1)[-1]) == instance:
                return True
    return False


def _progress_of(operation: Operation) -> tuple[float | None, str]:
    """The fraction and words of ``*_progress`` in the metadata: ``rootfs: 42% (1.2MB/s)``."""
    for key, value in operation.metadata.items():
        if key.endswith("_progress") and isinstance(value, str):
            percent = re.search(r"(\d{1,3})%", value)
            words = f"Downloading {value}" if key == "download_progress" else value
            return (min(int(percent[1]), 100) / 100 if percent else None), words
    return None, ""
