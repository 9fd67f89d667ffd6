"""The first start: an installation id, the default tenant, and an administrator whose token is shown once."""

from __future__ import annotations

import uuid
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from iceshelves.access import tokens
from iceshelves.access.policy import Actor, Role
from iceshelves.core.secret import Secret
from iceshelves.store.database import Database
from iceshelves.store.models import Setting, Tenant, User

DEFAULT_TENANT: Final = "default"
ADMIN: Final = "admin"
#: who acts where nobody asked: roll-backs that follow a failure, retention
SYSTEM: Final = "system"


def prepare(database: Database) -> Secret | None:
    """Make what must be there.  Returns the administrator's token if it was made just now."""
    with database.write() as session:
        if session.get(Setting, "installation"):
            return None
        session.add(Setting(name="installation", value=str(uuid.uuid4())))
        tenant = Tenant(name=DEFAULT_TENANT)
        session.add(tenant)
        session.flush()
        user = User(tenant_id=tenant.id, name=ADMIN, role=Role.ADMIN)
        session.add(user)
        session.flush()
        return tokens.issue(session, user, "first start")


def renew_admin_token(database: Database) -> Secret:
    """A new token for the administrator; all former ones end.  For whoever can read the database anyway."""
    with database.write() as session:
        user = session.execute(
            sa.select(User).join(Tenant).where(Tenant.name == DEFAULT_TENANT, User.name == ADMIN)
        ).scalar_one()
        tokens.revoke_all(session, user)
        return tokens.issue(session, user, "renewed")


def installation_id(session: Session) -> str:
    """What this installation writes on everything that it creates."""
    return session.execute(sa.select(Setting.value).where(Setting.name == "installation")).scalar_one()


def system_actor(tenant_id: int) -> Actor:
    """The control plane itself, acting for a tenant."""
    return Actor(tenant_id, 0, SYSTEM, Role.ADMIN)
