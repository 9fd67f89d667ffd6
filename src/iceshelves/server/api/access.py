"""Users, their tokens, and the audit log."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Query
from starlette.responses import Response

from iceshelves.access import users
from iceshelves.access.policy import Permission
from iceshelves.server.answers import Item, Listing
from iceshelves.server.call import Caller
from iceshelves.server.routes import Routes
from iceshelves.server.schemas.access import (
    AuditItem,
    ChangedUser,
    IssuedToken,
    NewUserBody,
    UserItem,
    WhoAmI,
)
from iceshelves.server.schemas.common import Paging, PathId
from iceshelves.store.queries import access as queries

USERS: Final = Listing("users", UserItem)
CREATED: Final = Item(IssuedToken, 201, "The user, with the token that is shown this once")
RENEWED: Final = Item(IssuedToken, 200, "The new token, shown this once; the former ones have ended")
CHANGED: Final = Item(ChangedUser)
AUDIT: Final = Listing("audit", AuditItem)
WHO: Final = Item(WhoAmI, description="Whom the token belongs to")

routes = Routes("access")


@routes.add("GET", "/api/whoami", "any", WHO)
def who_am_i(call: Caller) -> Response:
    """Say whom the token belongs to, and what it may do."""
    with call.control.database.read() as session:
        tenant = queries.tenant_name(session, call.tenant_id)
    allowed = [permission.value for permission in Permission if call.actor.may(permission)]
    return WHO.answer(
        WhoAmI(name=call.actor.name, role=call.actor.role.value, tenant=tenant, permissions=allowed)
    )


@routes.add("GET", "/api/users", Permission.ACCESS_WRITE, USERS)
def list_users(call: Caller, wanted: Annotated[Paging, Query()]) -> Response:
    """List the users."""
    with call.control.database.read() as session:
        return USERS.answer(queries.users(session, call.tenant_id, wanted.window))


@routes.add("POST", "/api/users", Permission.ACCESS_WRITE, CREATED, errors=(409,))
def create_user(call: Caller, body: NewUserBody) -> Response:
    """Let somebody act, and show the token once."""
    issued = users.create(call.control.database, call.actor, body.name, body.role, call.request_id)
    return CREATED.answer(_issued(issued))


@routes.add("POST", "/api/users/{user}/token", Permission.ACCESS_WRITE, RENEWED, errors=(404,))
def renew_token(call: Caller, user: PathId) -> Response:
    """Give a user a new token; the former ones end."""
    issued = users.renew(call.control.database, call.actor, user, call.request_id)
    call.services.authenticator.forget()
    return RENEWED.answer(_issued(issued))


@routes.add("DELETE", "/api/users/{user}", Permission.ACCESS_WRITE, CHANGED, errors=(404, 409))
def deactivate_user(call: Caller, user: PathId) -> Response:
    """Let a user act no more."""
    users.deactivate(call.control.database, call.actor, user, call.request_id)
    call.services.authenticator.forget()
    return CHANGED.answer(ChangedUser(user_id=user, message="The user is deactivated."))


@routes.add("GET", "/api/audit", Permission.AUDIT_READ, AUDIT)
def list_audit(call: Caller, wanted: Annotated[Paging, Query()]) -> Response:
    """List what was done and what was refused, the newest first."""
    with call.control.database.read() as session:
        return AUDIT.answer(queries.audit(session, call.tenant_id, wanted.window))


def _issued(issued: users.Issued) -> IssuedToken:
    return IssuedToken(
        user_id=issued.user_id,
        name=issued.name,
        role=issued.role,
        token=issued.token.reveal(),
        message="Keep the token: it is shown this once.",
    )
