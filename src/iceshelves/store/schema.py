"""Bringing the schema up to date.

Alembic is imported only where there is something to migrate: it is slow, and stays in memory.  An empty
database gets the tables of the models, which a test holds to be those of the migrations.
"""

from __future__ import annotations

import sqlalchemy as sa

from iceshelves.core.errors import InvalidInput
from iceshelves.store import migrations
from iceshelves.store.models import Base

#: held in PostgreSQL while the schema changes, so that two servers that start at once upgrade once
_LOCK = 7310214


def current(engine: sa.Engine) -> str | None:
    """The revision that the database is at, or ``None`` if it is empty."""
    with engine.connect() as connection:
        return _current(connection)


def upgrade(engine: sa.Engine) -> None:
    """Upgrade to :data:`migrations.HEAD`.  Raises :class:`InvalidInput` if the database is newer."""
    if current(engine) == migrations.HEAD:
        return
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
        found = _current(connection)
        if found is None:
            _create(connection)
        elif found not in migrations.KNOWN:
            raise InvalidInput(
                f"The database is at revision {found!r}, which this version of IceShelves does not know.",
                code="database_too_new",
                hint="Run the newer version that wrote it, or restore the backup from before the upgrade.",
            )
        elif found != migrations.HEAD:
            migrate(connection)


def migrate(connection: sa.Connection) -> None:
    """Run Alembic's migrations, from whichever revision the database is at; from an empty one, all."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "iceshelves:store/migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _create(connection: sa.Connection) -> None:
    Base.metadata.create_all(connection)
    # Alembic's own table and its one row
    version = sa.Table(
        "alembic_version", sa.MetaData(), sa.Column("version_num", sa.String(32), primary_key=True)
    )
    version.create(connection)
    connection.execute(version.insert().values(version_num=migrations.HEAD))


def _current(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    version: str | None = connection.execute(
        sa.text("SELECT version_num FROM alembic_version")
    ).scalar_one_or_none()
    return version
