"""The first start, the way back in, and the key that all servers of one database share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from iceshelves.access import bootstrap
from iceshelves.access.cipher import Cipher
from iceshelves.access.policy import Role
from iceshelves.access.tokens import Authenticator
from iceshelves.core.errors import InvalidInput, Unauthenticated
from iceshelves.store.database import Database, sqlite_url
from iceshelves.store.models import User


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(sqlite_url(tmp_path / "test.db"))
    made.migrate()
    yield made
    made.close()


def test_the_first_start_is_the_only_first(database: Database) -> None:
    token = bootstrap.prepare(database)
    assert token is not None
    assert bootstrap.prepare(database) is None
    assert Authenticator(database).identify(token.reveal()).role is Role.ADMIN


def test_the_renewed_token_lets_in_one_who_was_locked_out(database: Database) -> None:
    former = bootstrap.prepare(database)
    assert former is not None
    with database.write() as session:
        session.execute(sa.update(User).values(is_active=False, role="viewer"))
    renewed = bootstrap.renew_admin_token(database)
    assert Authenticator(database).identify(renewed.reveal()).role is Role.ADMIN
    with pytest.raises(Unauthenticated):
        Authenticator(database).identify(former.reveal())


def test_a_server_with_another_key_is_refused_at_its_start(database: Database) -> None:
    first, second = os.urandom(32), os.urandom(32)
    bootstrap.check_key(database, Cipher([first]))
    bootstrap.check_key(database, Cipher([first]))
    bootstrap.check_key(database, Cipher([second, first]))
    with pytest.raises(InvalidInput) as refused:
        bootstrap.check_key(database, Cipher([second]))
    assert refused.value.code == "wrong_encryption_key"
