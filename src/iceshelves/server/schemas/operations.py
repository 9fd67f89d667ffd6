"""Operations, their steps and log lines over the wire."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from iceshelves.server.schemas.common import Asked, Failure, Id, Moment, Named, Paging, Shown, Words
from iceshelves.store.queries.pages import Window

OperationState = Literal["pending", "running", "succeeded", "failed", "cancelled", "timeout"]
Source = Literal["engine", "guest"]


class OperationQuery(Paging):
    """Which operations to list."""

    status: OperationState | None = None
    deployment_id: Id | None = None


class LogQuery(Asked):
    """Which log lines to list; ``after`` is the id of the last line that is known already."""

    after: Annotated[int, Field(ge=0, le=2**62)] = 0
    operation_id: Words | None = None
    source: Source | None = None
    level: Words | None = None
    page: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    per_page: Annotated[int, Field(ge=1, le=1000)] = 100

    @property
    def window(self) -> Window:
        """The same for a query."""
        return Window(self.page, self.per_page)


class StepItem(Shown):
    """One step of an operation; ``progress`` is a fraction from 0 to 1 where there is one."""

    name: str
    status: str
    message: str
    progress: float | None
    attempts: int
    started_at: Moment | None
    finished_at: Moment | None


class OperationItem(Shown):
    """Work that can be watched and cancelled.  ``version`` grows with every visible change.

    It is about a deployment, with its revision, instance and cluster, or about the build of an appliance.
    """

    id: str
    kind: str
    status: str
    version: int
    deployment_id: int | None
    revision: int | None
    instance_name: str | None
    cluster: Named | None
    build_id: int | None
    appliance: str | None
    on_failure: str
    timeout: float
    deadline: Moment | None
    cancel_requested_on: Moment | None
    cancel_requested_by: str | None
    error: Failure | None
    created_by: str
    created_on: Moment
    started_at: Moment | None
    finished_at: Moment | None
    steps: list[StepItem]


class LogItem(Shown):
    """One line: ours (``source`` engine) or the guest's own."""

    id: int
    timestamp: Moment
    level: str
    message: str
    step: str
    source: str
    operation_id: str


class CancelledWork(Shown):
    """An operation that was asked to stop."""

    operation_id: str
    message: str
