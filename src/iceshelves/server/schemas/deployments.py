"""Deployments over the wire."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from iceshelves.deploy.requests import OnFailure, Timeout
from iceshelves.providers.base import InstanceKind
from iceshelves.server.schemas.common import (
    Body,
    Failure,
    Id,
    Moment,
    Named,
    ObjectName,
    Paging,
    Shown,
    Words,
)
from iceshelves.server.schemas.operations import LogItem, OperationItem

DeploymentState = Literal["pending", "in_progress", "completed", "failed", "cancelled", "timeout", "deleted"]
#: ``name`` or ``name@version``
EggName = Annotated[str, StringConstraints(max_length=200, pattern=r"^[a-z0-9][A-Za-z0-9._+@-]*$")]


class DeploymentQuery(Paging):
    """Which deployments to list; ``deleted`` adds those that are no more."""

    status: DeploymentState | None = None
    cluster_id: Id | None = None
    cluster: Words | None = None
    egg_id: Id | None = None
    name: Words | None = None
    search: Words | None = None
    deleted: bool = False


class EggReference(Shown):
    """Which egg."""

    id: int
    name: str
    version: str


class DeploymentItem(Shown):
    """A deployment in a list."""

    id: int
    egg_id: int
    egg: EggReference
    cluster_id: int
    cluster: Named
    instance_name: str
    target_member: str | None
    status: str
    deployment_type: str
    revision: int
    ipv4: list[str]
    started_at: Moment | None
    completed_at: Moment | None
    deployed_by: str
    created_on: Moment
    updated_on: Moment
    deleted_on: Moment | None


class InstanceInfo(Shown):
    """What is known of the instance; more than this may come along."""

    model_config = ConfigDict(extra="allow")

    name: str
    status: str = "unknown"
    architecture: str = ""
    ipv4: list[str] = Field(default_factory=list)
    ipv6: list[str] = Field(default_factory=list)
    image: str = ""
    member: str | None = None


class DeploymentDetail(DeploymentItem):
    """A deployment with its instance, its open or last operation, and the end of its log."""

    instance_info: InstanceInfo
    error: Failure | None
    operation: OperationItem | None
    logs: list[LogItem]


class RevisionItem(Shown):
    """What a deployment was at one time; secrets are replaced in ``inputs``."""

    number: int
    egg: EggReference
    inputs: dict[str, Any]
    image: str
    status: str
    created_by: str
    created_on: Moment


class DeployBody(Body):
    """An egg, a cluster and a name; everything else has a default.

    Name the egg by ``egg_id`` or ``egg`` (``name`` or ``name@version``), and the cluster by ``cluster_id``,
    ``target_id`` or ``cluster``.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"egg": "hello-web", "cluster": "lab", "instance_name": "web-1"}],
        }
    )

    egg_id: Id | None = None
    egg: EggName | None = None
    cluster_id: Id | None = None
    target_id: Id | None = None
    cluster: ObjectName | None = None
    instance_name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?$")]
    target_member: Words | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    config_overrides: dict[str, Any] = Field(default_factory=dict)
    image: Words | None = None
    kind: InstanceKind | None = None
    profiles: list[Words] | None = None
    timeout: Timeout | None = None
    on_failure: OnFailure = "keep"

    @model_validator(mode="after")
    def _names_both(self) -> Self:
        if (self.egg_id is None) == (self.egg is None):
            raise ValueError("give either egg_id or egg")
        if sum(value is not None for value in (self.cluster_id, self.target_id, self.cluster)) != 1:
            raise ValueError("give one of cluster_id, target_id and cluster")
        return self


class UpdateBody(Body):
    """A new revision in place.  What is left out stays as it was, secrets included."""

    egg: EggName | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    config_overrides: dict[str, Any] = Field(default_factory=dict)
    image: Words | None = None
    timeout: Timeout | None = None
    on_failure: OnFailure = "keep"


class RollbackBody(Body):
    """Which revision to go back to; by default the last good one before the present."""

    revision: Id | None = None
