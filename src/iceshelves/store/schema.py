"""Bringing the schema up to date.  Alembic is imported only when there is something to do: it is slow."""

from __future__ import annotations

import sqlalchemy as sa

from iceshelves.core.errors import InvalidInput
from iceshelves.store import migrations


def current(engine: sa.Engine) -> str | None:
    """The revision that the database is at, or ``None`` if it is empty."""
    with engine.connect() as connection:
        if not sa.inspect(connection).has_table("alembic_version"):
            return None
        version: str | None = connection.execute(
            sa.text("SELECT version_num FROM alembic_version")
        ).scalar_one_or_none()
        return version


def upgrade(engine: sa.Engine) -> None:
    """Upgrade to :data:`migrations.HEAD`.  Raises :class:`InvalidInput` if the database is newer."""
    found = current(engine)
    if found == migrations.HEAD:
        return
    if found is not None and found not in migrations.KNOWN:
        raise InvalidInput(
            f"The database is at revision {found!r}, which this version of IceShelves does not know.",
            code="database_too_new",
            hint="Run the newer version that wrote it, or restore the backup from before the upgrade.",
        )
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "iceshelves:store/migrations")
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":  # two servers that start at once upgrade once
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(7310214)"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
