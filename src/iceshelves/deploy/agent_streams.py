"""Streams to hypervisors beside agents: one side asks for a stream, the agent comes to fetch it.

An agent that holds a long poll open is told at once; it dials back, one websocket a stream, and joins it to
its daemon's socket.  So a console or a scan works through an agent as over any other connection.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from iceshelves.core.errors import NotFound, Temporary

#: seconds for the agent to come; between two long polls it is away for a moment
_PATIENCE: Final = 4.0
_MOST_WAITING: Final = 256


@dataclass(slots=True)
class _Asked:
    cluster_id: int
    agents_end: socket.socket
    fetched: asyncio.Event = field(default_factory=asyncio.Event)


class AgentStreams:
    """Lives on the event loop of one server, as the long polls of its agents do."""

    def __init__(self) -> None:
        self._asked: dict[str, _Asked] = {}
        self._wakers: dict[int, set[Callable[[], None]]] = {}

    async def open(self, cluster_id: int) -> socket.socket:
        """Our end of a new stream.  Raises :class:`Temporary` ``agent_away``."""
        ours, agents = socket.socketpair()
        ours.setblocking(False)
        agents.setblocking(False)
        name = secrets.token_urlsafe(24)
        asked = _Asked(cluster_id, agents)
        if len(self._asked) >= _MOST_WAITING:
            raise self._away(ours, agents)
        self._asked[name] = asked
        try:
            for wake in list(self._wakers.get(cluster_id, ())):
                wake()
            async with asyncio.timeout(_PATIENCE):
                await asked.fetched.wait()
        except TimeoutError:
            raise self._away(ours, agents) from None
        except asyncio.CancelledError:
            self._away(ours, agents)
            raise
        finally:
            self._asked.pop(name, None)
        return ours

    def asked(self, cluster_id: int) -> list[str]:
        """The streams that the cluster's agent should come for."""
        return [name for name, asked in self._asked.items() if asked.cluster_id == cluster_id]

    def fetch(self, cluster_id: int, name: str) -> socket.socket:
        """The agent's end of a stream; once.  Raises :class:`NotFound` ``stream_not_found``."""
        asked = self._asked.get(name)
        if asked is None or asked.cluster_id != cluster_id or asked.fetched.is_set():
            raise NotFound("There is no such stream.", code="stream_not_found")
        asked.fetched.set()
        return asked.agents_end

    def listen(self, cluster_id: int, wake: Callable[[], None]) -> Callable[[], None]:
        """Have ``wake`` called whenever a stream is asked for; returns what ends that."""
        self._wakers.setdefault(cluster_id, set()).add(wake)

        def end() -> None:
            wakers = self._wakers.get(cluster_id, set())
            wakers.discard(wake)
            if not wakers:
                self._wakers.pop(cluster_id, None)

        return end

    @staticmethod
    def _away(*ends: socket.socket) -> Temporary:
        for end in ends:
            end.close()
        return Temporary(
            "The agent does not answer at the moment.",
            code="agent_away",
            hint="See whether 'iceshelves agent' runs beside the hypervisor and reaches this server;"
            " live access needs an agent that is allowed to long-poll.",
            delay=2.0,
        )
