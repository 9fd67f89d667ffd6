"""What operations are about to place on the members of a cluster, before the hypervisor can tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from iceshelves.core.units import parse_size
from iceshelves.deploy.spec import DeploymentSpec

#: bytes that an instance without a limit is expected to need; what Incus gives a virtual machine
_UNLIMITED: Final = 1024**3


@dataclass(frozen=True, slots=True)
class Plan:
    """What an operation puts on ``member``: bytes of memory, and an instance until one can be seen there."""

    member: str
    memory: int
    instances: int

    @classmethod
    def of(cls, spec: DeploymentSpec, facts: Mapping[str, Any]) -> Plan | None:
        """As an operation's durable facts tell it; ``None`` before the choice, or where there is none."""
        member = facts.get("member")
        is_made = "volumes" in facts  # the step before: from its beginning on the hypervisor counts it
        return cls(member, memory_of(spec.config), instances=0 if is_made else 1) if member else None


class Plans:
    """What the operations that run on one cluster are about to place; known to this process only."""

    def __init__(self) -> None:
        self._plans: dict[str, Plan] = {}

    def put(self, operation_id: str, plan: Plan) -> None:
        """Count ``plan`` from now on."""
        self._plans[operation_id] = plan

    def drop(self, operation_id: str) -> None:
        """The operation has ended."""
        self._plans.pop(operation_id, None)

    def of(self, member: str) -> list[Plan]:
        """What is planned there."""
        return [plan for plan in self._plans.values() if plan.member == member]


def memory_of(config: Mapping[str, str]) -> int:
    """Bytes that an instance with ``config`` is to be given room for."""
    limit = config.get("limits.memory", "")
    return _UNLIMITED if not limit or limit.endswith("%") else parse_size(limit)
