"""The first start: an installation id, the default tenant, and an administrator whose token is shown once."""

from __future__ import annotations

import base64
import uuid
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from iceshelves.access import tokens
from iceshelves.access.cipher import Cipher
from iceshelves.access.policy import Actor, Role
from iceshelves.core.errors import Failed, InvalidInput
from iceshelves.core.secret import Secret
from iceshelves.store.database import Database
from iceshelves.store.models import Setting, Tenant, User

DEFAULT_TENANT: Final = "default"
ADMIN: Final = "admin"
#: who acts where nobody asked: roll-backs that follow a failure, retention
SYSTEM: Final = "system"
_KEY_CHECK: Final = "key-check"


def prepare(database: Database) -> Secret | None:
    """Make what must be there.  Returns the administrator's token if it was made just now."""
    try:
        return _prepare(database)
    except sa.exc.IntegrityError:  # another server on the same database was faster by an instant
        return None


def check_key(database: Database, cipher: Cipher) -> None:
    """See at the start whether ``cipher`` can read what is stored: servers on one database share their key.

    Raises :class:`InvalidInput` ``wrong_encryption_key``.
    """
    try:
        with database.write() as session:
            kept = session.get(Setting, _KEY_CHECK)
            if kept is None:
                sealed = cipher.encrypt(_KEY_CHECK.encode(), f"settings.value:{_KEY_CHECK}")
                session.add(Setting(name=_KEY_CHECK, value=base64.b64encode(sealed).decode()))
                session.flush()
                return
    except sa.exc.IntegrityError:  # as above; theirs is looked at now
        check_key(database, cipher)
        return
    try:
        cipher.decrypt(base64.b64decode(kept.value), f"settings.value:{_KEY_CHECK}")
    except Failed as error:
        raise InvalidInput(
            "The secrets in the database were encrypted with another key.",
            code="wrong_encryption_key",
            hint="Give every server of one database the same ICESHELVES_ENCRYPTION_KEY; "
            "former keys follow the new one, after commas.",
        ) from error


def _prepare(database: Database) -> Secret | None:
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
        user.is_active = True  # the way back in, even for one who was deactivated
        user.role = Role.ADMIN
        tokens.revoke_all(session, user)
        return tokens.issue(session, user, "renewed")


def installation_id(session: Session) -> str:
    """What this installation writes on everything that it creates."""
    return session.execute(sa.select(Setting.value).where(Setting.name == "installation")).scalar_one()


def system_actor(tenant_id: int) -> Actor:
    """The control plane itself, acting for a tenant."""
    return Actor(tenant_id, 0, SYSTEM, Role.ADMIN)
