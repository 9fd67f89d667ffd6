"""The agent's process: enrol once, then poll, work and report until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import gc
import os
import random
import signal
import socket as sockets
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final, Protocol

import aiohttp

from iceshelves import __version__
from iceshelves.agent import identity as identities
from iceshelves.agent.crew import Crew
from iceshelves.agent.disk import Disk
from iceshelves.agent.hypervisor import Hypervisor
from iceshelves.agent.identity import Identity
from iceshelves.agent.line import Dial, Line
from iceshelves.agent.mirror import Mirror, Wanted
from iceshelves.core import log
from iceshelves.core.alone import alone
from iceshelves.core.errors import (
    Conflict,
    Failed,
    IceShelvesError,
    InvalidInput,
    Temporary,
    Unauthenticated,
)
from iceshelves.core.log import logger
from iceshelves.core.together import until_one_ends
from iceshelves.deploy.messages import MOST_ENTRIES, Enrolment, Poll, PollAnswer

#: seconds for which the server may hold a poll open
_HOLD: Final = 20.0
#: seconds between two reports, by whether the server lets us long-poll
_LIVE_REPORT: Final = 0.2
_WORKING_REPORT: Final = 5.0
_REPORT_BYTES: Final = 400_000
#: seconds for which a stream that has ended counts as come for
_TRIED_SECONDS: Final = 5.0
_LONGEST_PAUSE: Final = 60.0
#: glibc's malloc.h
_M_TRIM_THRESHOLD: Final = -1
_M_ARENA_MAX: Final = -8

_log: Final = logger(__name__)


async def enrol(server: str, token: str, state: Path, socket: str = "", authority: str = "") -> Identity:
    """Become the agent of the token's cluster; the key is kept in ``state``.

    Raises :class:`Unauthenticated` ``invalid_enrolment``, :class:`InvalidInput` ``not_a_socket``, and
    :class:`Failed` where the server cannot be reached: the token is good for another try.
    """
    _check_socket(socket)
    line = Line(server, authority)
    try:
        enrolled = await line.enrol(Enrolment(token=token, host=sockets.gethostname(), version=__version__))
    except Temporary as error:
        raise Failed(
            error.message,
            code=error.code,
            hint="Check the address, which ends in /iceshelves; the token has not been used.",
        ) from error
    finally:
        await line.close()
    identity = Identity(server, enrolled.cluster, enrolled.key, socket, authority)
    identity.save(state)
    # what a former agent of this folder held is not this one's
    for name in ("agent.db", "agent.db-wal", "agent.db-shm"):
        (state / name).unlink(missing_ok=True)
    return identity


def _check_socket(socket: str) -> None:
    if socket and not Path(socket).is_socket():
        raise InvalidInput(
            f"{socket} is not a socket.",
            code="not_a_socket",
            hint="Give the hypervisor's with --socket, or leave it out; the token has not been used.",
        )


def run(state: Path, level: str = "INFO") -> None:
    """Serve the cluster that ``state`` is enrolled for, until a signal ends it.

    Raises :class:`~iceshelves.core.errors.NotFound` ``not_enrolled``, :class:`Conflict` ``agent_runs``, and
    what the server refuses for good.
    """
    log.configure(level)
    _keep_memory_small()
    with _alone(state):
        asyncio.run(_serve(identities.load(state), state))


async def _serve(identity: Identity, state: Path) -> None:
    """Work until a signal says stop."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    disk = Disk(state / "agent.db")
    program = Program(identity, state, disk, Line(identity.server, identity.authority))
    gc.freeze()
    try:
        await until_one_ends(program.work(), _wait(stopped))
    finally:
        disk.close()


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


class ServerLine(Protocol):
    """What the program needs of its :class:`~iceshelves.agent.line.Line`."""

    async def poll(self, identity: Identity, poll: Poll) -> PollAnswer: ...
    async def carry(self, identity: Identity, stream: str, dial: Dial) -> None: ...
    def fetch(
        self, identity: Identity, wanted: Wanted
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]: ...
    async def close(self) -> None: ...


class Program:
    """Polls, works and reports.  Lives on the event loop."""

    def __init__(self, identity: Identity, state: Path, disk: Disk, line: ServerLine) -> None:
        self._identity = identity
        self._state = state
        self._disk = disk
        self._line = line
        self._report = asyncio.Event()
        self._hypervisor = Hypervisor(identity.socket, self._report.set, Mirror(self._fetch))
        self._crew = Crew(self._disk, self._hypervisor.provider, self._report.set)
        self._streams: dict[str, asyncio.Task[None]] = {}
        self._long_poll = False
        self._interval = _LONGEST_PAUSE
        #: whether the server has said, since the start, which of the claims on disk are still ours
        self._confirmed = False

    async def work(self) -> None:
        """Work until cancelled.  Raises what the server refuses for good."""
        try:
            await until_one_ends(self._poll_for_ever(), self._report_for_ever())
        finally:
            for task in (streams := list(self._streams.values())):
                task.cancel()
            await asyncio.gather(*streams, return_exceptions=True)
            await self._crew.stop()
            await self._hypervisor.close()
            await self._line.close()

    async def _poll_for_ever(self) -> None:
        pause = 0.0
        while True:
            try:
                await self._round(wants_work=True)
                if pause:
                    _log.info("%s is reached again", self._identity.server)
                pause = 0.0
                if not self._long_poll:
                    await asyncio.sleep(self._interval)
            except Temporary as error:
                pause = min(_LONGEST_PAUSE, max(pause * 2, error.delay / 2))
                _log.warning("%s Trying again in %.0f s.", error.message, pause)
                await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311  (not a secret)

    async def _report_for_ever(self) -> None:
        """Tell what happens while the main poll is held, or before the next one is due."""
        while True:
            await self._report.wait()
            await asyncio.sleep(_LIVE_REPORT if self._long_poll else _WORKING_REPORT)
            self._report.clear()
            if not self._confirmed:
                continue  # the first poll tells it
            try:
                while await self._round(wants_work=False):
                    pass  # there was more than one report could hold
            except Temporary as error:
                _log.debug("a report waits: %s", error.message)
                await asyncio.sleep(error.delay)
                self._report.set()

    async def _round(self, *, wants_work: bool) -> bool:
        """One poll; whether entries are left to tell."""
        identity = self._identity
        instances, self._hypervisor.instances = self._hypervisor.instances, None
        # which numbers the server has seen is not known before its first answer
        entries = self._disk.untold(MOST_ENTRIES, _REPORT_BYTES) if self._confirmed else []
        unsaid = self._disk.waiting_after(entries[-1].number if entries else 0)
        poll = Poll(
            spool=self._disk.spool,
            host=sockets.gethostname(),
            version=__version__,
            entries=entries,
            ends={held: end for held, end in self._disk.endings().items() if held not in unsaid},
            running=self._disk.held(),
            stopping=self._disk.cancelled(),
            coming=list(self._streams),
            wants_work=wants_work,
            hold=_HOLD if wants_work and self._confirmed else 0.0,
            health=self._hypervisor.health,
            instances=instances,
        )
        try:
            answer = await self._line.poll(identity, poll)
        except BaseException as error:
            self._hypervisor.tell_again(instances)
            if isinstance(error, Unauthenticated) and self._identity.key != identity.key:
                raise Temporary("The key was renewed meanwhile.", code="key_renewed", delay=0.1) from error
            raise
        await self._apply(answer)
        return len(self._disk.untold(1, _REPORT_BYTES)) > 0 and bool(entries)

    async def _apply(self, answer: PollAnswer) -> None:
        if answer.key is not None:
            self._identity = self._identity.with_key(answer.key)
            self._identity.save(self._state)
        self._long_poll = answer.settings.long_poll
        self._interval = float(answer.settings.poll_interval)
        if self._confirmed:
            self._disk.told(answer.taken)
        else:
            self._disk.go_on_after(answer.taken)
        for operation in answer.drop:
            self._crew.drop(operation)
        for operation, verdict in answer.ended.items():
            self._crew.decide(operation, verdict)
        await self._hypervisor.apply(answer.settings)
        for operation in answer.cancel:
            self._crew.cancel(operation)
        if not self._confirmed:
            self._confirmed = True
            self._report.set()
            said = (
                f"IceShelves agent {__version__} serves {self._identity.cluster} of {self._identity.server}"
            )
            print(said, flush=True)  # noqa: T201  (the line that whoever started it waits for)
        for claim in answer.work:
            self._crew.take(claim)
        self._crew.go_on()
        for operation in answer.cancel:  # one that was claimed in the same answer
            self._crew.cancel(operation)
        for stream in answer.streams:
            self._come_for(stream)

    def _fetch(self, wanted: Wanted) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return self._line.fetch(self._identity, wanted)

    def _come_for(self, stream: str) -> None:
        if stream in self._streams:
            return
        task = asyncio.create_task(self._carry(stream))
        self._streams[stream] = task
        # one that failed at once is not come for again before the server has given it up
        forget = functools.partial(self._streams.pop, stream, None)
        task.add_done_callback(lambda task: task.get_loop().call_later(_TRIED_SECONDS, forget))

    async def _carry(self, stream: str) -> None:
        try:
            await self._line.carry(
                self._identity, stream, lambda: asyncio.open_unix_connection(self._hypervisor.socket)
            )
        except OSError as error:
            _log.warning("no stream: %s: %s", self._hypervisor.socket, error)
        except IceShelvesError as error:
            _log.debug("a stream ended: %s", error)


@contextlib.contextmanager
def _alone(state: Path) -> Iterator[None]:
    """Hold the state folder for this process alone."""
    try:
        descriptor = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield  # there is no identity in it either, which is what has to be told
        return
    refusal = Conflict(
        f"Another agent runs on {state}.",
        code="agent_runs",
        hint="Stop that one first, or give this one a folder of its own with --state.",
    )
    with alone(descriptor, refusal):
        yield


def _keep_memory_small() -> None:
    """One heap, given back when it is free: an agent waits for most of its life."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # other C libraries have no such settings
        libc.mallopt(_M_ARENA_MAX, 1)
        libc.mallopt(_M_TRIM_THRESHOLD, 256 * 1024)
