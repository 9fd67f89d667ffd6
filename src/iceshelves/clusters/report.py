"""What a test of a cluster is given and what it finds, as values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from iceshelves.clusters.health import AgentSeen
from iceshelves.connections.values import Connection
from iceshelves.providers.base import Provider, ServerInfo

State = Literal["passed", "warned", "failed", "not_tried"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried, and what to do if it did not work."""

    name: str
    state: State
    message: str = ""
    remedy: str | None = None

    @property
    def ok(self) -> bool:
        """Whether work can go on: a warning is no failure, and what was not tried is no success."""
        return self.state in ("passed", "warned")


@dataclass(frozen=True, slots=True)
class ClusterReport:
    """What a test of a cluster found.  ``status`` is active or error."""

    status: str
    message: str
    server: ServerInfo | None = None
    checks: tuple[Check, ...] = ()
    members: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class AgentState:
    """What is known of a cluster's agent.  ``streams`` says whether it carries live connections."""

    seen: AgentSeen
    version: str = ""
    host: str = ""
    streams: bool = False


@dataclass(frozen=True, slots=True)
class Subject:
    """The cluster to test: its connection, what opens a provider on it, and its agent if it has one."""

    name: str
    family: str
    connection: Connection
    open: Callable[[], Provider]
    agent: AgentState | None = None
