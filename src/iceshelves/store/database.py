"""Opening the database: one engine, one way to begin a transaction, on SQLite or PostgreSQL.

SQLite runs in WAL mode and begins every transaction as a writer (``BEGIN IMMEDIATE``): readers that turn
into writers half way would otherwise fail with "database is locked" at once instead of waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as ConnectionsUsedUp
from sqlalchemy.orm import Session, sessionmaker

from iceshelves.core.errors import InvalidInput, Temporary
from iceshelves.core.log import logger
from iceshelves.store import schema

#: without them every commit waits for the disk, and a second writer fails instead of waiting
SQLITE_PRAGMAS: Final = (
    "journal_mode=WAL",
    "synchronous=NORMAL",
    "busy_timeout=30000",
    "foreign_keys=ON",
    "temp_store=MEMORY",
)


log = logger(__name__)


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite file."""
    return f"sqlite:///{path}"


def create_engine(url: str, *, pool_size: int = 10) -> sa.Engine:
    """An engine with the settings that both databases need here.  Raises :class:`InvalidInput`."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise InvalidInput(
            "The database URL cannot be read.",
            code="invalid_database_url",
            hint="Write postgresql://user@host/name, or leave it out to use SQLite.",
        ) from error
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        engine = sa.create_engine(parsed, connect_args={"check_same_thread": False, "timeout": 30})
        _prepare_sqlite(engine)
        return engine
    if backend == "postgresql":
        return sa.create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            pool_size=pool_size,
            max_overflow=pool_size,
            pool_pre_ping=True,
        )
    raise InvalidInput(
        f"{backend!r} is not a database that IceShelves can use.",
        code="invalid_database_url",
        hint="Use postgresql://… or sqlite:///….",
    )


def _prepare_sqlite(engine: sa.Engine) -> None:
    @event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver must not begin transactions of its own
        cursor = connection.cursor()
        for pragma in SQLITE_PRAGMAS:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _on_begin(connection: sa.Connection) -> None:
        mode = connection.get_execution_options().get("sqlite_begin", "IMMEDIATE")
        connection.exec_driver_sql(f"BEGIN {mode}")


class Database:
    """The application's database.  ``write()`` and ``read()`` are the only ways in."""

    def __init__(self, url: str) -> None:
        self.engine = create_engine(url)
        self.dialect = self.engine.dialect.name
        self._writers = sessionmaker(self.engine, expire_on_commit=False)
        reading = self.engine.execution_options(sqlite_begin="DEFERRED")
        self._readers = sessionmaker(reading, expire_on_commit=False)

    def migrate(self) -> None:
        """Bring the schema up to date; cheap when it is."""
        with _plain_errors(_unusable):
            schema.upgrade(self.engine)

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that commits at the end, or not at all."""
        with _plain_errors(_away), self._writers.begin() as session:
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A consistent view; nothing that is done in it is kept."""
        with _plain_errors(_away), self._readers() as session:
            yield session

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


@contextmanager
def _plain_errors(described: Callable[[str], Temporary]) -> Iterator[None]:
    """A database that is away, full or out of connections becomes an error that a user can act on."""
    try:
        yield
    except (OperationalError, InterfaceError, ConnectionsUsedUp) as error:
        words = str(getattr(error, "orig", None) or error).strip().splitlines()
        raise described(words[0] if words else type(error).__name__) from error


def _unusable(cause: str) -> Temporary:
    """For who starts the server: with the database's own words."""
    return Temporary(
        f"The database did not answer as it should: {cause}",
        code="database_unavailable",
        hint="Check that it runs, accepts connections, and has room on its disk.",
    )


def _away(cause: str) -> Temporary:
    """For everybody else: the database's words may tell its address and user, so the log alone gets them."""
    log.warning("the database did not answer as it should: %s", cause)
    return Temporary(
        "The database did not answer as it should.",
        code="database_unavailable",
        hint="Try again; if it stays so, the server's log says why.",
    )
