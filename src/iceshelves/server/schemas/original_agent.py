"""The wire of the original's agents: their shapes to the letter, without the envelope of the API."""

from __future__ import annotations

from pydantic import Field, RootModel

from iceshelves.deploy.original_agent import Offer
from iceshelves.server.schemas.common import Shown


class OfferedDeployment(RootModel[Offer]):
    """A deployment to make.  All of ``config_overrides`` goes into the instance's configuration."""


class OfferedDeployments(Shown):
    """What there is to do."""

    deployments: list[OfferedDeployment]


class StatusTaken(Shown):
    """A report was taken."""

    success: bool = True
    message: str = "Status updated"


class PlainRefusal(Shown):
    """Why a request of the original's agent was refused."""

    error: str = Field(examples=["Invalid agent key"])


class OriginalKeyShown(Shown):
    """What the environment file of the original's agent needs; ``agent_key`` is shown this once."""

    cluster_id: int
    agent_key: str
    poll_interval: int
