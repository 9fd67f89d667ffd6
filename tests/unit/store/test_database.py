"""The database: migrations make what the models say, and its failures are told without its secrets."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from iceshelves.core.errors import InvalidInput, Temporary
from iceshelves.store import migrations, schema
from iceshelves.store.database import Database, sqlite_url
from iceshelves.store.models import Base


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(sqlite_url(tmp_path / "test.db"))
    yield made
    made.close()


@pytest.mark.parametrize("by_migrations", [True, False])
def test_an_empty_database_gets_what_the_models_say(database: Database, by_migrations: bool) -> None:
    if by_migrations:
        with database.engine.begin() as connection:
            schema.migrate(connection)
    database.migrate()
    database.migrate()
    assert schema.current(database.engine) == migrations.HEAD
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_an_empty_database_is_made_without_what_migrates_it(tmp_path: Path) -> None:
    """It would stay in the server's memory."""
    script = (
        "import sys; from iceshelves.store.database import Database, sqlite_url\n"
        f"Database(sqlite_url({str(tmp_path / 'new.db')!r})).migrate()\n"
        "sys.exit('alembic' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_head_is_the_head() -> None:
    scripts = ScriptDirectory(str(Path(migrations.__file__).parent))
    assert scripts.get_current_head() == migrations.HEAD
    assert {script.revision for script in scripts.walk_revisions()} == migrations.KNOWN


def test_a_database_of_a_later_version_is_refused(database: Database) -> None:
    database.migrate()
    with database.write() as session:
        session.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(InvalidInput) as refused:
        schema.upgrade(database.engine)
    assert refused.value.code == "database_too_new"


@pytest.mark.parametrize(
    "error",
    [
        sa.exc.OperationalError("SELECT", {}, Exception('connection to "10.0.0.5" as user "x" failed')),
        sa.exc.InterfaceError("SELECT", {}, Exception('connection to "10.0.0.5" as user "x" failed')),
        sa.exc.TimeoutError('QueuePool limit reached, connection to "10.0.0.5" as user "x" timed out'),
    ],
)
def test_a_database_that_is_away_is_temporary_and_its_address_is_only_logged(
    database: Database, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Temporary) as away, database.read():
        raise error
    assert away.value.code == "database_unavailable"
    assert "10.0.0.5" not in str(away.value.to_json())
    assert "10.0.0.5" in caplog.text
