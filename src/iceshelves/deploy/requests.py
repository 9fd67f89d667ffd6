"""What callers can ask for of deployments, checked at the edge."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from iceshelves.core.request import Request
from iceshelves.providers.base import InstanceKind

OnFailure = Literal["keep", "cleanup"]
InstanceName = Annotated[str, Field(min_length=1, max_length=63, examples=["web-1"])]
Timeout = Annotated[float, Field(gt=0, le=7 * 86400, description="Seconds that the work may take")]


class DeployRequest(Request):
    """An egg, a cluster and a name; everything else has a default."""

    egg_id: int
    cluster_id: int
    instance_name: InstanceName
    target_member: str | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    config_overrides: dict[str, Any] = Field(default_factory=dict)
    image: str | None = None
    kind: InstanceKind | None = None
    profiles: list[str] | None = None
    timeout: Timeout | None = None
    on_failure: OnFailure = "keep"


class UpdateRequest(Request):
    """A new revision in place.  What is left out stays as it was."""

    egg_id: int | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    config_overrides: dict[str, Any] = Field(default_factory=dict)
    image: str | None = None
    timeout: Timeout | None = None
    on_failure: OnFailure = "keep"


class Accepted(BaseModel):
    """Work that has been written down and will be done."""

    model_config = ConfigDict(frozen=True)

    deployment_id: int
    operation_id: str
    instance_name: str
