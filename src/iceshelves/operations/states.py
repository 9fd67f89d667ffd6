"""The states of operations and steps, as data."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class OperationStatus(StrEnum):
    """``pending`` waits for its turn, ``running`` has begun; all others are final."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"


class StepStatus(StrEnum):
    """What became of one step."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"


OPEN: Final = frozenset({OperationStatus.PENDING, OperationStatus.RUNNING})
