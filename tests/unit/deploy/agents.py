"""An agent in the test's own process, beside a plane: its disk and its line can be cut at any moment."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from iceshelves.agent import hypervisor, program
from iceshelves.agent.disk import Disk
from iceshelves.agent.identity import Identity
from iceshelves.clusters.reaching import AGENT
from iceshelves.core.decode import decode
from iceshelves.core.errors import Temporary
from iceshelves.deploy.messages import Enrolment, Poll, PollAnswer
from iceshelves.store.models import Cluster

from .conftest import ADMIN, Killed, Plane

_POLL = TypeAdapter(Poll)
_ANSWER = TypeAdapter(PollAnswer)
_WRITES = ("hold", "cancel", "touch", "forget", "record", "tell", "told", "put_ending", "take_ending")


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is gathered, and nobody waits for long."""
    monkeypatch.setattr(program, "_LIVE_REPORT", 0.0)
    monkeypatch.setattr(program, "_WORKING_REPORT", 0.02)
    monkeypatch.setattr(program, "_HOLD", 0.5)
    monkeypatch.setattr(hypervisor, "_GATHER", 0.0)


def enrol(plane: Plane) -> str:
    """Make the plane's cluster one that an agent reaches; the agent's key."""
    with plane.control.database.write() as session:
        cluster = session.get_one(Cluster, plane.cluster_id)
        cluster.connection_method, cluster.project = AGENT, plane.world_name
    token = plane.control.agents.invite(ADMIN, plane.cluster_id).reveal()
    return plane.control.agents.enrol(Enrolment(token=token, host="h1")).key


class LocalLine:
    """Takes polls to the plane as the wire would: through JSON, and with the key checked each time."""

    def __init__(self, plane: Plane, moment: Callable[[str], None]) -> None:
        self.plane = plane
        self.moment = moment
        self.polls: list[Poll] = []
        #: told of each answer on its way; it may be lost there
        self.on_answer: Callable[[PollAnswer], None] = lambda _answer: None

    async def poll(self, identity: Identity, poll: Poll) -> PollAnswer:
        self.moment("before a poll")
        self.polls.append(poll)
        told = _POLL.validate_json(json.dumps(asdict(poll)))
        agents = self.plane.control.agents
        known = await asyncio.to_thread(agents.identify, identity.key)
        answer = await agents.poll(known, told, lambda: False)
        self.moment("an answer lost")
        self.on_answer(answer)
        return decode(PollAnswer, json.loads(_ANSWER.dump_json(answer)))

    async def carry(self, *_arguments: Any) -> None:
        raise Temporary("There are no streams here.", code="agent_away")

    @asynccontextmanager
    async def fetch(self, *_arguments: Any) -> AsyncIterator[Any]:
        raise Temporary("There are no images here.", code="server_unreachable")
        yield

    async def close(self) -> None:
        return


class MortalDisk(Disk):
    """A disk on which each write is a moment; once the process is dead nothing is written any more."""

    def __init__(self, file: Path, moment: Callable[[str], None]) -> None:
        super().__init__(file)
        self._moment = moment

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in _WRITES:
            return found

        def write(*arguments: Any) -> None:
            what = f"{name} {arguments[1]}" if name == "record" else name
            self._moment(f"before {what}")
            found(*arguments)
            self._moment(f"after {what}")

        return write


class Beside:
    """The agent.  ``kill()`` ends it as SIGKILL would; ``start()`` is a new process on the same disk."""

    def __init__(self, plane: Plane, state: Path, on_moment: Callable[[str], None] = lambda _name: None):
        self.plane = plane
        self.state = state
        self.on_moment = on_moment
        self.identity = Identity("http://server", "local", enrol(plane))
        self.identity.save(state)
        self.line: LocalLine
        self.killed = asyncio.Event()
        self._dead = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        from iceshelves.agent import identity as identities

        self._dead = False
        self.killed.clear()
        self.identity = identities.load(self.state)
        self.line = LocalLine(self.plane, self._moment)
        disk = MortalDisk(self.state / "agent.db", self._moment)
        self._task = asyncio.create_task(program.Program(self.identity, self.state, disk, self.line).work())

    async def kill(self) -> None:
        self._dead = True
        await self.stop()

    async def stop(self) -> None:
        """End it; unless it is dead already, it may put its things in order."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @property
    def error(self) -> BaseException | None:
        """What ended the agent by itself."""
        task = self._task
        return task.exception() if task is not None and task.done() else None

    def _moment(self, name: str) -> None:
        if self._dead:
            raise Killed(name)
        try:
            self.on_moment(name)
        except Killed:
            self._dead = True
            self.killed.set()
            raise
