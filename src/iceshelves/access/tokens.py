"""API tokens: 256 random bits, shown once, kept as a hash.

A token reads ``isv_`` and 43 URL-safe characters; the prefix lets scanners for leaked secrets find it.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections import OrderedDict
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from iceshelves.access.policy import Actor, Role
from iceshelves.core import clock
from iceshelves.core.errors import Unauthenticated
from iceshelves.core.secret import Secret
from iceshelves.store.database import Database
from iceshelves.store.models import Token, User

PREFIX: Final = "isv_"
_REMEMBERED: Final = 1024
_REMEMBERED_SECONDS: Final = 5.0


def fingerprint(token: str) -> str:
    """What is stored of a token: the SHA-256 of it, in hexadecimal."""
    return hashlib.sha256(token.encode()).hexdigest()


def issue(session: Session, user: User, name: str, expires_on: datetime | None = None) -> Secret:
    """Make a token for ``user``; its value is returned here and nowhere else."""
    value = PREFIX + secrets.token_urlsafe(32)
    session.add(
        Token(
            tenant_id=user.tenant_id,
            user_id=user.id,
            name=name,
            hash=fingerprint(value),
            expires_on=expires_on,
        )
    )
    return Secret(value)


def revoke_all(session: Session, user: User) -> None:
    """End every token of ``user``."""
    session.execute(
        sa.update(Token)
        .where(Token.user_id == user.id, Token.revoked_on.is_(None))
        .values(revoked_on=clock.now())
    )


class Authenticator:
    """Tells who a token belongs to.  Answers are kept for seconds: a revocation takes as long."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: OrderedDict[str, tuple[float, Actor]] = OrderedDict()
        self._lock = threading.Lock()

    def forget(self) -> None:
        """Drop what is remembered: tokens were just revoked here."""
        with self._lock:
            self._known.clear()

    def identify(self, token: str) -> Actor:
        """The actor behind ``token``.  Raises :class:`Unauthenticated`, alike for every reason."""
        key = fingerprint(token)
        with self._lock:
            known = self._known.get(key)
        if known and known[0] > time.monotonic():
            return known[1]
        actor = self._look_up(key)
        with self._lock:
            self._known[key] = (time.monotonic() + _REMEMBERED_SECONDS, actor)
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return actor

    def _look_up(self, key: str) -> Actor:
        query = (
            sa.select(User.tenant_id, User.id, User.name, User.role, Token.expires_on)
            .join(User, User.id == Token.user_id)
            .where(Token.hash == key, Token.revoked_on.is_(None), User.is_active)
        )
        with self._database.read() as session:
            row = session.execute(query).one_or_none()
        if row is None or (row.expires_on is not None and row.expires_on <= clock.now()):
            raise Unauthenticated(
                "The token is unknown, expired or revoked.",
                code="invalid_token",
                hint="Log in again: iceshelves login URL",
            )
        return Actor(row.tenant_id, row.id, row.name, Role(row.role))
