"""PostgreSQL: the same code, the same migrations, and several servers that stand in for each other."""

from __future__ import annotations

import base64
import os
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from iceshelves.store import schema
from iceshelves.store.database import Database
from iceshelves.store.models import Base
from testbed.server import Server


def _environment(postgres_url: str) -> dict[str, str]:
    return {
        "ICESHELVES_DATABASE_URL": postgres_url,
        "ICESHELVES_ENCRYPTION_KEY": base64.b64encode(os.urandom(32)).decode(),
    }


@pytest.mark.parametrize("by_migrations", [True, False])
def test_an_empty_database_gets_what_the_models_say(postgres_url: str, by_migrations: bool) -> None:
    database = Database(postgres_url)
    if by_migrations:
        with database.engine.begin() as connection:
            schema.migrate(connection)
    database.migrate()
    database.migrate()
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection)
        differences = compare_metadata(context, Base.metadata)
    database.close()
    assert [entry for entry in differences if not _is_the_engines(entry)] == []


def _is_the_engines(entry: object) -> bool:
    return "dbos" in str(entry)


def test_another_server_takes_a_dead_ones_work_over(postgres_url: str, tmp_path: Path) -> None:
    environment = _environment(postgres_url)
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one = Server(tmp_path / "one" / "data", environment).start()
    two = Server(tmp_path / "two" / "data", environment)
    try:
        guests = {"*": {"duration": 3.0, "output": [{"text": "begun"}]}}
        world = f"fake://shared?file={tmp_path / 'world.json'}"
        one.post("/clusters", name="fake", provider="fake", endpoint_url=world, options={"guests": guests})
        accepted = [
            one.post("/deploy", egg="hello-web", cluster="fake", instance_name=f"web-{number}")
            for number in range(5)
        ]
        for entry in accepted:
            one.wait_for_step(entry["operation_id"], "cloud-init")
        two.token_file.write_text(one.token)
        two.start()
        one.kill()
        killed = time.monotonic()
        for entry in accepted:
            operation = two.wait(entry["operation_id"], 60)
            assert operation["status"] == "succeeded", operation["error"]
            assert two.logs(entry["deployment_id"]).count("begun") == 1
        assert time.monotonic() - killed < 30
    finally:
        for server in (one, two):
            if server.process is not None and server.process.poll() is None:
                server.kill()


def test_a_database_that_restarts_loses_nothing(postgres_url: str, tmp_path: Path) -> None:
    """Its sessions end, and with them all locks: no living server is taken for dead."""
    environment = _environment(postgres_url)
    servers: list[Server] = []
    try:
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            servers.append(Server(tmp_path / name / "data", environment))
        one, two = servers
        one.start()
        two.token_file.write_text(one.token)
        two.start()
        options = {"guests": {"*": {"duration": 6}}}
        one.post("/clusters", name="fake", provider="fake", endpoint_url="fake://pg", options=options)
        accepted = [
            one.post("/deploy", egg="hello-web", cluster="fake", instance_name=f"web-{number}")
            for number in range(10)
        ]
        for entry in accepted:
            one.wait_for_step(entry["operation_id"], "cloud-init")
        _end_sessions(postgres_url)
        for entry in accepted:
            operation = one.wait(entry["operation_id"], 60)
            assert operation["status"] == "succeeded", operation["error"]
            assert {step["attempts"] for step in operation["steps"]} == {1}
        assert "taking over" not in (tmp_path / "two" / "server.log").read_text()
    finally:
        for server in servers:
            server.kill()


def _end_sessions(url: str) -> None:
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        connection.execute(
            sa.text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    engine.dispose()


@pytest.mark.parametrize("url", ["postgresql://127.0.0.1:1/none"])
def test_a_database_that_is_away_is_said_in_one_line(url: str, tmp_path: Path) -> None:
    server = Server(tmp_path / "data", {"ICESHELVES_DATABASE_URL": url})
    with pytest.raises(AssertionError, match="database"):
        server.start()


def test_a_server_with_another_key_is_refused_at_its_start(postgres_url: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one = Server(tmp_path / "one" / "data", _environment(postgres_url)).start()
    try:
        with pytest.raises(AssertionError, match="another key"):
            Server(tmp_path / "two" / "data", _environment(postgres_url)).start()
    finally:
        one.kill()
