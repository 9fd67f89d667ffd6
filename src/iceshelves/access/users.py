"""Use cases of users and their tokens.  A tenant always keeps an administrator who can log in."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from iceshelves.access import audit, tokens
from iceshelves.access.policy import Actor, Role
from iceshelves.core.errors import Conflict, NotFound
from iceshelves.core.secret import Secret
from iceshelves.store.database import Database
from iceshelves.store.models import User


@dataclass(frozen=True, slots=True)
class Issued:
    """A user and its only valid token, which is shown once."""

    user_id: int
    name: str
    role: str
    token: Secret


def create(database: Database, actor: Actor, name: str, role: Role, request_id: str = "") -> Issued:
    """Let somebody act.  One who was deactivated comes back.  Raises :class:`Conflict` ``user_exists``."""
    with database.write() as session:
        user = session.execute(
            sa.select(User).where(User.tenant_id == actor.tenant_id, User.name == name)
        ).scalar_one_or_none()
        if user is not None and user.is_active:
            raise _exists(name)
        if user is None:
            user = User(tenant_id=actor.tenant_id, name=name)
            session.add(user)
        user.role = role.value
        user.is_active = True
        try:
            session.flush()
        except sa.exc.IntegrityError as error:  # the same request, at the same time
            raise _exists(name) from error
        audit.record(session, actor, "user.create", name, request_id=request_id, details={"role": role.value})
        return _issue(session, user)


def renew(database: Database, actor: Actor, user_id: int, request_id: str = "") -> Issued:
    """A new token for a user; all its former ones end.  Raises :class:`NotFound`."""
    with database.write() as session:
        user = _owned(session, actor, user_id)
        audit.record(session, actor, "user.renew-token", user.name, request_id=request_id)
        return _issue(session, user)


def deactivate(database: Database, actor: Actor, user_id: int, request_id: str = "") -> None:
    """Let a user act no more.  Raises :class:`NotFound`, and :class:`Conflict` ``last_admin``."""
    with database.write() as session:
        user = _owned(session, actor, user_id)
        if user.role == Role.ADMIN and not _other_admins(session, user):
            raise Conflict(
                f"{user.name} is the last administrator.",
                code="last_admin",
                hint="Make another administrator first.",
            )
        user.is_active = False
        tokens.revoke_all(session, user)
        audit.record(session, actor, "user.deactivate", user.name, request_id=request_id)


def _issue(session: Session, user: User) -> Issued:
    tokens.revoke_all(session, user)
    return Issued(user.id, user.name, user.role, tokens.issue(session, user, "api"))


def _owned(session: Session, actor: Actor, user_id: int) -> User:
    user = session.get(User, user_id)
    if user is None or user.tenant_id != actor.tenant_id or not user.is_active:
        raise NotFound(f"There is no user {user_id}.", code="user_not_found", hint="iceshelves user list")
    return user


def _other_admins(session: Session, user: User) -> bool:
    others = sa.exists().where(
        User.tenant_id == user.tenant_id, User.role == Role.ADMIN, User.is_active, User.id != user.id
    )
    return bool(session.execute(sa.select(others)).scalar_one())


def _exists(name: str) -> Conflict:
    return Conflict(
        f"There is a user called {name!r} already.",
        code="user_exists",
        hint="Renew the token of that one, or choose another name.",
    )
