"""Agents over the wire: what people ask for; what agents say is in ``deploy.messages``."""

from __future__ import annotations

from pydantic import RootModel

from iceshelves.deploy.messages import Enrolled, PollAnswer
from iceshelves.server.schemas.common import Shown


class Invitation(Shown):
    """A one-time token, shown this once; ``expires_in`` seconds."""

    cluster_id: int
    token: str
    expires_in: int


class AgentChanged(Shown):
    """What was done to a cluster's agent."""

    cluster_id: int
    message: str


class EnrolledAgent(RootModel[Enrolled]):
    """What a new agent is told."""


class AgentOrders(RootModel[PollAnswer]):
    """What an agent is told at a poll."""
