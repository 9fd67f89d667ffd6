"""An operation as whoever carries it out sees it, whatever it is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from iceshelves.operations.states import OperationStatus

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
Source = Literal["engine", "guest"]


class Report(Protocol):
    """Where a step says how it goes.  Never blocks and never fails."""

    def log(self, message: str, level: Level = "INFO", source: Source = "engine") -> None: ...
    def progress(self, fraction: float | None, words: str) -> None: ...


class Job(Protocol):
    """What to do, and for whom."""

    @property
    def operation_id(self) -> str: ...
    @property
    def tenant_id(self) -> int: ...
    @property
    def kind(self) -> str: ...
    @property
    def steps(self) -> tuple[str, ...]: ...

    @property
    def deployment_id(self) -> int | None:
        """The deployment that the operation is about, if it is about one."""
        ...

    @property
    def secrets(self) -> Sequence[str]:
        """What must not show in any log."""
        ...

    @property
    def topics(self) -> tuple[str, ...]:
        """What is told on the bus when something of it changes."""
        ...


@dataclass(frozen=True, slots=True)
class Ending:
    """How an operation ended.  ``clean`` says that nothing of what it made was left."""

    status: OperationStatus
    error: dict[str, Any] | None
    facts: dict[str, Any]
    clean: bool
