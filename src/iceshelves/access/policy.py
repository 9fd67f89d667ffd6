"""Roles and permissions.  Deny by default: what is not listed for a role is refused.

The roles are the original's: an administrator does everything, an operator deploys and looks, a viewer reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from iceshelves.core.errors import Denied


class Permission(StrEnum):
    """What a route or a command can ask for; the API names one on every route."""

    EGGS_READ = "eggs:read"
    EGGS_WRITE = "eggs:write"
    CLUSTERS_READ = "clusters:read"
    CLUSTERS_WRITE = "clusters:write"
    DEPLOYMENTS_READ = "deployments:read"
    DEPLOYMENTS_WRITE = "deployments:write"
    INSTANCES_EXEC = "instances:exec"
    IMAGES_READ = "images:read"
    IMAGES_WRITE = "images:write"
    METRICS_READ = "metrics:read"
    AUDIT_READ = "audit:read"
    ACCESS_WRITE = "access:write"


class Role(StrEnum):
    """The three roles."""

    ADMIN = "admin"
    OPERATOR = "operator"
    VIEWER = "viewer"


_READ: Final = frozenset(
    {
        Permission.EGGS_READ,
        Permission.CLUSTERS_READ,
        Permission.DEPLOYMENTS_READ,
        Permission.IMAGES_READ,
        Permission.METRICS_READ,
    }
)
GRANTS: Final[dict[Role, frozenset[Permission]]] = {
    Role.ADMIN: frozenset(Permission),
    Role.OPERATOR: _READ | {Permission.DEPLOYMENTS_WRITE, Permission.INSTANCES_EXEC},
    Role.VIEWER: _READ,
}


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: a user of a tenant, through one of its tokens."""

    tenant_id: int
    user_id: int
    name: str
    role: Role

    def may(self, permission: Permission) -> bool:
        """Whether the actor's role grants ``permission``."""
        return permission in GRANTS[self.role]

    def need(self, permission: Permission) -> None:
        """Raise :class:`Denied` unless the actor's role grants ``permission``."""
        if not self.may(permission):
            able = " or ".join(role for role in Role if permission in GRANTS[role])
            raise Denied(
                f"The role {self.role} may not do this: it needs {permission}.",
                code="permission_missing",
                hint=f"Ask somebody with the role {able}.",
                details={"permission": permission.value},
            )
