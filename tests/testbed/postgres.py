"""A real PostgreSQL for tests: its own cluster in a temporary directory, one new database for each test."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg

from testbed.hosts import TestbedError, die_with_parent, scratch_directory, wait_until


def programs() -> Path | None:
    """Where this machine's newest PostgreSQL keeps ``initdb`` and ``postgres``; ``None`` when it has none."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    return versions[-1].parent if versions else None


def missing_for_postgres() -> str | None:
    """Why PostgreSQL cannot be started here; ``None`` when it can."""
    if programs() is None:
        return "not installed: postgresql"
    if os.geteuid() == 0 and not _has_user("postgres"):
        return "no user 'postgres', and PostgreSQL refuses to run as root"
    return None


@dataclass(frozen=True)
class Postgres:
    """A running server on loopback.  ``restart``-style faults are made through :attr:`process`."""

    port: int
    process: subprocess.Popen[bytes]

    def url(self, database: str = "postgres") -> str:
        """Where ``database`` is, as ``postgresql://…``."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def answers(self) -> bool:
        """Whether it takes connections."""
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self.url(), connect_timeout=2):
            return True
        return False

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a new, empty database, which is dropped at the end of the block."""
        name = f"test_{secrets.token_hex(6)}"
        with psycopg.connect(self.url(), autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {name} TEMPLATE template0".encode())
        try:
            yield self.url(name)
        finally:
            with psycopg.connect(self.url(), autocommit=True) as admin:
                admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@contextlib.contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A new PostgreSQL, for as long as the block lasts.  Nothing of it is safe against a power cut."""
    folder = programs()
    if folder is None:
        raise TestbedError("PostgreSQL is not installed")
    root = scratch_directory("postgres")
    user = "postgres" if os.geteuid() == 0 else None
    try:
        if user:
            shutil.chown(root, user)
        made = subprocess.run(
            [str(folder / "initdb"), "--pgdata", str(root / "data"), "--username=postgres", "--auth=trust",
             "--encoding=UTF8", "--locale=C", "--no-sync"],
            user=user, cwd=root, capture_output=True, text=True,
        )  # fmt: skip
        if made.returncode:
            raise TestbedError(f"initdb failed: {made.stderr.strip()}")
        port = _free_port()
        with (root / "log").open("wb") as log:
            process = subprocess.Popen(
                [str(folder / "postgres"), "-D", str(root / "data"), "-p", str(port), "-k", str(root),
                 "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "max_connections=300"],
                user=user, cwd=root, stdout=log, stderr=subprocess.STDOUT, preexec_fn=die_with_parent,
            )  # fmt: skip
        server = Postgres(port, process)
        try:
            wait_until(lambda: process.poll() is not None or server.answers(), "PostgreSQL")
            if process.poll() is not None:
                raise TestbedError(f"PostgreSQL ended: {(root / 'log').read_text(errors='replace')[-2000:]}")
            yield server
        finally:
            process.terminate()  # SIGTERM would wait for clients; the following SIGQUIT does not
            process.send_signal(3)
            process.wait()
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _has_user(name: str) -> bool:
    with contextlib.suppress(KeyError):
        return bool(pwd.getpwnam(name))
    return False
