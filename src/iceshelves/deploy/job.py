"""An operation on a deployment as whoever carries it out sees it: in the server and in an agent alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from iceshelves.deploy.spec import DeploymentSpec
from iceshelves.providers.base import Mark

CLEAN_UP: Final = "clean-up"
#: from the first of these steps on, something of ours may be on the cluster
MAKING_STEPS: Final = ("resources", "create")


@dataclass(frozen=True, slots=True)
class Job:
    """What to do, for whom, where."""

    operation_id: str
    tenant_id: int
    deployment_id: int
    cluster_id: int
    #: operations at once on the cluster, if it has a limit of its own
    limit: int | None
    #: whether it was running already when it was loaded: its deadline is set
    begun: bool
    kind: str
    steps: tuple[str, ...]
    revision: int
    #: whether it replaces an earlier revision that was good, so that there is something to go back to
    replaces: bool
    on_failure: str
    spec: DeploymentSpec
    mark: Mark

    @property
    def secrets(self) -> Sequence[str]:
        """What must not show in any log."""
        return tuple(self.spec.secrets)

    @property
    def topics(self) -> tuple[str, ...]:
        """What is told on the bus when something of it changes."""
        return (f"operation:{self.operation_id}", f"deployment:{self.deployment_id}")
