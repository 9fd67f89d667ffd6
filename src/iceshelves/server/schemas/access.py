"""Users and the audit log over the wire."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from iceshelves.access.policy import Role
from iceshelves.server.schemas.common import Body, Moment, ObjectName, Shown


class UserItem(Shown):
    """Somebody, or a program, that acts."""

    id: int
    name: str
    role: str
    is_active: bool
    created_on: Moment


class NewUserBody(Body):
    """Somebody who may act from now on."""

    name: ObjectName
    role: Annotated[Role, Field(strict=False)]


class IssuedToken(Shown):
    """A token, shown this once."""

    user_id: int
    name: str
    role: str
    token: str
    message: str


class ChangedUser(Shown):
    """A user that was changed."""

    user_id: int
    message: str


class AuditItem(Shown):
    """Who did what to which object, and whether it was allowed."""

    id: int
    timestamp: Moment
    actor: str
    action: str
    object: str
    outcome: str
    request_id: str
    details: dict[str, Any]


class WhoAmI(Shown):
    """Whom the token belongs to, and what it may do."""

    name: str
    role: str
    tenant: str
    permissions: list[str]
