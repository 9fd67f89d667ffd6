"""What an agent and the server tell each other in a poll: the one round trip of the agent's protocol.

Both sides ignore members that they do not know, so that either may be newer; only in a specification they are
an error, for they may be what matters.  The agent's entries are
numbered without gaps, so that an answer which was lost on its way costs nothing: what is sent again is known
by its number.  The bounds that ``Annotated`` gives are checked by the server.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

from annotated_types import Ge, Le, MaxLen

from iceshelves.operations.states import OperationStatus

Name = Annotated[str, MaxLen(255)]
OperationId = Annotated[str, MaxLen(36)]
Fence = Annotated[int, Ge(1), Le(2**31 - 1)]
#: seconds for which a claim is the agent's; every poll that names it renews it
LEASE_SECONDS: Final = 45.0
#: entries that one poll may carry
MOST_ENTRIES: Final = 500


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened in a claimed operation, ``number`` counting from 1 in the agent's record."""

    number: Annotated[int, Ge(1), Le(2**53)]
    operation: OperationId
    fence: Fence
    kind: Literal["step", "progress", "log", "step-end"]
    at: Annotated[str, MaxLen(40)]
    step: Annotated[str, MaxLen(32)]
    #: of ``log``: the line; of ``progress`` and ``step-end``: words for people
    text: Annotated[str, MaxLen(16_384)] = ""
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    source: Literal["engine", "guest"] = "engine"
    fraction: Annotated[float, Ge(0), Le(1)] | None = None
    #: of ``step-end``
    status: Literal["done", "failed", "cancelled"] | None = None


@dataclass(frozen=True, slots=True)
class End:
    """How a claimed operation ended; told until the server has answered."""

    fence: Fence
    status: OperationStatus
    error: dict[str, Any] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    clean: bool = False


@dataclass(frozen=True, slots=True)
class SeenInstance:
    """An instance on the agent's hypervisor.  ``mark`` holds ours, if it has one."""

    name: Annotated[str, MaxLen(63)]
    kind: Literal["container", "virtual-machine"]
    power: Literal["running", "stopped", "frozen", "error", "unknown"]
    architecture: Annotated[str, MaxLen(32)] = ""
    member: Annotated[str, MaxLen(63)] | None = None
    image: Annotated[str, MaxLen(64)] = ""
    description: Annotated[str, MaxLen(1000)] = ""
    mark: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the hypervisor answers its agent; ``server`` says who it is, as the provider's probe does."""

    ok: bool
    message: Annotated[str, MaxLen(1000)] = ""
    server: dict[str, Any] | None = None
    members: Annotated[list[dict[str, Any]], MaxLen(200)] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Poll:
    """What an agent tells at each poll.

    ``spool`` names its record on disk, and with it this very agent.  ``running`` says which operations it
    holds, with their fences.  ``hold`` is for how many seconds the answer may wait for something to do;
    a poll that only reports asks for no work.
    """

    spool: OperationId
    host: Name = ""
    version: Annotated[str, MaxLen(64)] = ""
    entries: Annotated[list[Entry], MaxLen(MOST_ENTRIES)] = field(default_factory=list)
    ends: Annotated[dict[OperationId, End], MaxLen(200)] = field(default_factory=dict)
    running: Annotated[dict[OperationId, int], MaxLen(1000)] = field(default_factory=dict)
    #: those of them that it knows to be cancelled, and the streams that it is coming for
    stopping: Annotated[list[OperationId], MaxLen(1000)] = field(default_factory=list)
    coming: Annotated[list[Name], MaxLen(1000)] = field(default_factory=list)
    wants_work: bool = True
    hold: Annotated[float, Ge(0), Le(60)] = 0.0
    health: Health | None = None
    instances: Annotated[list[SeenInstance], MaxLen(5000)] | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """An operation that is the agent's to carry out, with everything that it needs."""

    operation: OperationId
    fence: int
    kind: str
    steps: list[str]
    revision: int
    replaces: bool
    on_failure: str
    seconds_left: float
    #: whether something of the deployment may be on the cluster from before
    touched: bool
    #: lines of the guest that the log holds already
    guest_lines: int
    mark: dict[str, Any]
    spec: dict[str, Any]


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """What the server decides for the agent."""

    provider: str
    project: str
    image_servers: list[dict[str, str]] | None
    poll_interval: int
    long_poll: bool
    #: operations that may run at once
    limit: int
    #: the scenario of a fake
    options: dict[str, Any] = field(default_factory=dict)
    #: whether the hypervisor fetches images from the agent, which gets them from the server
    pass_images: bool = False


@dataclass(frozen=True, slots=True)
class PollAnswer:
    """What the server answers.  ``taken`` is the number of the last entry that it has."""

    taken: int
    settings: AgentSettings
    work: list[Claim] = field(default_factory=list)
    #: operations that somebody asked to stop
    cancel: list[str] = field(default_factory=list)
    #: operations that are not the agent's any more: it stops where it is and forgets them
    drop: list[str] = field(default_factory=list)
    #: ends that were written down: false where the operation is to be undone, as it was cancelled at last
    ended: dict[str, bool] = field(default_factory=dict)
    #: streams to come for
    streams: list[str] = field(default_factory=list)
    #: a new key, to be used from the next poll on
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Enrolment:
    """An agent introduces itself with a one-time token."""

    token: Annotated[str, MaxLen(200)]
    host: Name = ""
    version: Annotated[str, MaxLen(64)] = ""


@dataclass(frozen=True, slots=True)
class Enrolled:
    """The agent's key, shown this once, and the cluster that it serves."""

    cluster: str
    key: str
    settings: AgentSettings
