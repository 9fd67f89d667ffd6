"""The registry's database: one file beside the tree, readable while others write.

It holds what was published and the text of every catalogue; the files in the tree can be made from it at any
time.  ``dirty`` marks catalogues whose file is older than their text.  Moments are seconds since 1970.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from iceshelves.core.errors import Conflict, Failed, NotFound, Temporary

_APPLICATION: Final = 0x49635265  # "IcRe"
_VERSION: Final = 1
_BUSY: Final = 30.0

_SCHEMA: Final = """
CREATE TABLE entry (
  id INTEGER PRIMARY KEY, appliance TEXT NOT NULL, architecture TEXT NOT NULL, version TEXT NOT NULL,
  serial TEXT NOT NULL, os TEXT NOT NULL, release TEXT NOT NULL, description TEXT NOT NULL,
  aliases TEXT NOT NULL, requirements TEXT NOT NULL, published INTEGER NOT NULL,
  unneeded_since INTEGER,
  UNIQUE (appliance, architecture, serial)
) STRICT;
CREATE TABLE item (
  entry INTEGER NOT NULL REFERENCES entry ON DELETE CASCADE, kind TEXT NOT NULL, sha256 TEXT NOT NULL,
  size INTEGER NOT NULL, fingerprint TEXT, base INTEGER REFERENCES entry ON DELETE CASCADE,
  unneeded_since INTEGER
) STRICT;
CREATE INDEX item_of_entry ON item (entry);
CREATE INDEX item_by_content ON item (sha256);
CREATE INDEX item_by_fingerprint ON item (fingerprint) WHERE fingerprint IS NOT NULL;
CREATE INDEX item_by_base ON item (base) WHERE base IS NOT NULL;
CREATE TABLE shown (
  entry INTEGER NOT NULL REFERENCES entry ON DELETE CASCADE, channel TEXT NOT NULL,
  since INTEGER NOT NULL, ended INTEGER,
  PRIMARY KEY (entry, channel)
) STRICT, WITHOUT ROWID;
CREATE TABLE series (
  appliance TEXT NOT NULL, architecture TEXT NOT NULL, newest TEXT NOT NULL,
  PRIMARY KEY (appliance, architecture)
) STRICT, WITHOUT ROWID;
CREATE TABLE section (
  id INTEGER PRIMARY KEY, channel TEXT NOT NULL, appliance TEXT NOT NULL, architecture TEXT NOT NULL,
  text TEXT NOT NULL, names TEXT NOT NULL,
  UNIQUE (channel, appliance, architecture)
) STRICT;
CREATE TABLE place (
  view TEXT NOT NULL, section INTEGER NOT NULL REFERENCES section, shard INTEGER NOT NULL,
  PRIMARY KEY (view, section)
) STRICT, WITHOUT ROWID;
CREATE INDEX place_in_shard ON place (view, shard);
CREATE TABLE shard (
  view TEXT NOT NULL, number INTEGER NOT NULL, bytes INTEGER NOT NULL, names TEXT NOT NULL,
  dirty INTEGER NOT NULL,
  PRIMARY KEY (view, number)
) STRICT;
CREATE INDEX dirty_shard ON shard (view, number) WHERE dirty;
CREATE TABLE view (path TEXT PRIMARY KEY, dirty INTEGER NOT NULL) STRICT;
CREATE INDEX dirty_view ON view (path) WHERE dirty;
CREATE TABLE good (
  name TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, inode INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE combined (
  metadata TEXT NOT NULL, root TEXT NOT NULL, sha256 TEXT NOT NULL, PRIMARY KEY (metadata, root)
) STRICT, WITHOUT ROWID;
"""


class Database:
    """Opens connections, each for one piece of work, from any thread.

    One more is kept open: the last to close a database writes its log back, which a publisher would wait for.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with _own_errors():
            self._keeper = self._connect()
            self._check()

    @classmethod
    def create(cls, path: Path) -> Database:
        """A new database at ``path``.  Raises :class:`Conflict` ``registry_exists``."""
        if path.exists():
            raise Conflict("There is a registry already.", code="registry_exists")
        unfinished = path.with_name(f"{path.name}.new")  # a killed maker leaves none that looks whole
        for left in path.parent.glob(f"{unfinished.name}*"):
            left.unlink()
        with _own_errors():
            connection = sqlite3.connect(unfinished, isolation_level=None)
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA application_id={_APPLICATION}; "
                                         f"PRAGMA user_version={_VERSION}; COMMIT;")  # fmt: skip
            finally:
                connection.close()
        unfinished.chmod(0o600)
        unfinished.rename(path)
        return cls(path)

    def close(self) -> None:
        """Let go of the file."""
        self._keeper.close()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection that sees one state for as long as the block lasts."""
        with _own_errors():
            connection = self._connect()
            try:
                connection.execute("BEGIN")
                yield connection
            finally:
                connection.close()

    @contextmanager
    def working(self) -> Iterator[sqlite3.Connection]:
        """A connection for a writer, who begins and ends transactions by :func:`transaction`."""
        with _own_errors():
            connection = self._connect()
            try:
                yield connection
            finally:
                connection.close()

    def _connect(self) -> sqlite3.Connection:
        uri = f"{self._path.absolute().as_uri()}?mode=rw"
        connection = sqlite3.connect(
            uri, uri=True, timeout=_BUSY, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA synchronous=FULL")
        return connection

    def _check(self) -> None:
        [application] = self._keeper.execute("PRAGMA application_id").fetchone()
        [version] = self._keeper.execute("PRAGMA user_version").fetchone()
        if application != _APPLICATION:
            raise Failed("registry.db is not a registry's database.", code="registry_unusable")
        if version != _VERSION:
            raise Failed(
                f"The registry has format {version}, and this program knows format {_VERSION}.",
                code="registry_format_unknown",
                hint="Use the IceShelves that wrote it last, or a newer one.",
            )


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of the block, or nothing of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


@contextmanager
def hasty(connection: sqlite3.Connection) -> Iterator[None]:
    """Commits in the block may be undone by a power failure: for what is found out anew at the next start."""
    connection.execute("PRAGMA synchronous=NORMAL")
    try:
        yield
    finally:
        connection.execute("PRAGMA synchronous=FULL")


@contextmanager
def _own_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise Temporary(
                "The registry is busy.", code="registry_busy", hint="Try again in a moment.", delay=5.0
            ) from error
        if "unable to open" in str(error):
            raise NotFound(
                "There is no registry there.", code="registry_not_found", hint="Give the registry's folder."
            ) from error
        raise _unusable(error) from error
    except sqlite3.Error as error:
        raise _unusable(error) from error


def _unusable(error: sqlite3.Error) -> Failed:
    return Failed(
        f"The registry's database cannot be used: {error}.",
        code="registry_unusable",
        hint="Look after the disk and the permissions of the registry's folder.",
    )
