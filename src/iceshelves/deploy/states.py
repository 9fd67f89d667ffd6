"""The states of operations, deployments and steps, as data.

Deployments keep the original's states and add two: ``deleting`` is never stored, ``deleted`` ends the record.
"""

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


class DeploymentStatus(StrEnum):
    """What became of the deployment's last operation."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    DELETED = "deleted"


class StepStatus(StrEnum):
    """What became of one step."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"


OPEN: Final = frozenset({OperationStatus.PENDING, OperationStatus.RUNNING})

#: what a deployment becomes when its deploying operation ends
AFTER_DEPLOY: Final[dict[OperationStatus, DeploymentStatus]] = {
    OperationStatus.SUCCEEDED: DeploymentStatus.COMPLETED,
    OperationStatus.FAILED: DeploymentStatus.FAILED,
    OperationStatus.CANCELLED: DeploymentStatus.CANCELLED,
    OperationStatus.TIMEOUT: DeploymentStatus.TIMEOUT,
}
