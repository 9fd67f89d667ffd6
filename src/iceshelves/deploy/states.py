"""The states of deployments, as data.

They are the original's, and two more: ``deleting`` is never stored, ``deleted`` ends the record.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from iceshelves.operations.states import OperationStatus


class DeploymentStatus(StrEnum):
    """What became of the deployment's last operation."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    DELETED = "deleted"


#: what a deployment becomes when its deploying operation ends
AFTER_DEPLOY: Final[dict[OperationStatus, DeploymentStatus]] = {
    OperationStatus.SUCCEEDED: DeploymentStatus.COMPLETED,
    OperationStatus.FAILED: DeploymentStatus.FAILED,
    OperationStatus.CANCELLED: DeploymentStatus.CANCELLED,
    OperationStatus.TIMEOUT: DeploymentStatus.TIMEOUT,
}
