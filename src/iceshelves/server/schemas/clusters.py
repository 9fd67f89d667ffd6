"""Clusters over the wire."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from iceshelves.server.schemas.common import WHOLE, Body, Moment, ObjectName, Prose, Shown, Words


class ClusterItem(Shown):
    """A cluster in a list."""

    id: int
    name: str
    description: str
    provider: str
    connection_method: str
    endpoint_url: str
    project: str
    status: str
    is_active: bool
    last_check: Moment | None
    max_operations: int | None
    created_by: str
    created_on: Moment


class ClusterHealth(Shown):
    """What the last test found."""

    status: str
    message: str
    checked_at: Moment | None


class ClusterMetadata(Shown):
    """What is known of the machines; ``server`` in the hypervisor's own words."""

    members: list[dict[str, Any]]
    resources: dict[str, Any]
    server: dict[str, Any]


class ClusterDetail(ClusterItem):
    """A cluster with what its last test found."""

    auth_type: str
    is_cluster: bool
    metadata: ClusterMetadata
    health: ClusterHealth


class NewClusterBody(Body):
    """A hypervisor system to manage.  An empty ``endpoint_url`` means the family's usual socket."""

    model_config = ConfigDict(title="NewCluster")

    name: ObjectName
    description: Prose = ""
    provider: Literal["incus", "lxd", "fake"] = "incus"
    connection_method: Words = "unix-socket"
    endpoint_url: Words = ""
    project: Annotated[str, Field(max_length=63, pattern=r"^[A-Za-z0-9._-]+$")] = "default"
    max_operations: Annotated[int, Field(ge=1, le=1000), WHOLE] | None = None
    options: dict[str, Any] = Field(default_factory=dict)


class CreatedCluster(Shown):
    """A cluster that is managed now."""

    cluster_id: int
    message: str


class ClusterCheck(Shown):
    """One thing that was tried, and what to do if it did not work."""

    name: str
    ok: bool
    message: str
    remedy: str | None


class ClusterTestDetails(Shown):
    """What a test found."""

    message: str
    server_version: str | None
    api_version: str | None
    checks: list[ClusterCheck]


class ClusterTest(Shown):
    """The result of a test: active or error."""

    status: str
    details: ClusterTestDetails


class DeletedCluster(Shown):
    """A cluster that is managed no more; nothing on it was touched."""

    cluster_id: int
    message: str
