"""What an agent must not lose: its claims, what they have done, and what the server has not been told yet.

One SQLite file.  Whatever is written is there after a kill at any moment; the numbers of entries have no
gaps, so that the server knows again what it was told before.
"""

from __future__ import annotations

import json
import os
import sqlite3
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from iceshelves.core.decode import decode
from iceshelves.core.errors import InvalidInput
from iceshelves.deploy.messages import Claim, End, Entry

#: entries that are kept for a server that is away; beyond it, progress and log lines are dropped and counted
_MOST_KEPT: Final = 50_000
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS held (
    operation TEXT PRIMARY KEY, claim TEXT NOT NULL, fence INTEGER NOT NULL, deadline REAL NOT NULL,
    cancelled INTEGER NOT NULL DEFAULT 0, touched INTEGER NOT NULL, guest_lines INTEGER NOT NULL, ending TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS done (
    operation TEXT NOT NULL, name TEXT NOT NULL, result TEXT NOT NULL, PRIMARY KEY (operation, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entries (
    number INTEGER PRIMARY KEY AUTOINCREMENT, operation TEXT NOT NULL, entry TEXT NOT NULL
);
"""


@dataclass(frozen=True, slots=True)
class Held:
    """How a claim stands.  ``deadline`` by this machine's clock, in seconds since the epoch."""

    deadline: float
    cancelled: bool
    touched: bool
    guest_lines: int


class Disk:
    """Used from the event loop alone; each call is a transaction of its own and takes about a millisecond."""

    def __init__(self, file: Path) -> None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # its journal is made alike
            self._database = sqlite3.connect(file, isolation_level=None)
            # numbers that the server has seen must not be lost with the power
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "cache_size=-256"):
                self._database.execute(f"PRAGMA {pragma}")
            self._database.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise InvalidInput(
                f"The agent's record {file} cannot be opened: {error}",
                code="record_unusable",
                hint="Give another folder with --state, or mend its rights.",
            ) from error
        self.spool: Final = self._spool()
        self._last = self._one("SELECT seq FROM sqlite_sequence WHERE name = 'entries'") or 0

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    # ---- claims

    def hold(self, claim: Claim, deadline: float) -> None:
        """Write a claim down; one that is held already only gets its new fence."""
        with self._database:
            self._database.execute(
                "INSERT INTO held (operation, claim, fence, deadline, touched, guest_lines)"
                " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (operation) DO UPDATE SET fence = excluded.fence",
                (
                    claim.operation,
                    json.dumps(asdict(claim)),
                    claim.fence,
                    deadline,
                    claim.touched,
                    claim.guest_lines,
                ),
            )

    def held(self) -> dict[str, int]:
        """The operations that are held, with their fences."""
        return dict(self._database.execute("SELECT operation, fence FROM held"))

    def claim(self, operation: str) -> Claim | None:
        """The claim of ``operation`` under the fence that holds now, if it is held."""
        row = self._database.execute(
            "SELECT claim, fence FROM held WHERE operation = ?", (operation,)
        ).fetchone()
        return None if row is None else replace(decode(Claim, json.loads(row[0])), fence=row[1])

    def look_up(self, operation: str) -> Held | None:
        """How ``operation`` stands, if it is held."""
        row = self._database.execute(
            "SELECT deadline, cancelled, touched, guest_lines FROM held WHERE operation = ?", (operation,)
        ).fetchone()
        return None if row is None else Held(row[0], bool(row[1]), bool(row[2]), row[3])

    def cancel(self, operation: str) -> None:
        """Remember that somebody asked it to stop."""
        self._database.execute("UPDATE held SET cancelled = 1 WHERE operation = ?", (operation,))

    def cancelled(self) -> list[str]:
        """Those that somebody asked to stop."""
        return [row[0] for row in self._database.execute("SELECT operation FROM held WHERE cancelled")]

    def touch(self, operation: str) -> None:
        """Remember that something of it may be on the hypervisor."""
        self._database.execute("UPDATE held SET touched = 1 WHERE operation = ?", (operation,))

    def forget(self, operation: str) -> None:
        """Drop a claim and what it has done; entries that wait to be told stay."""
        with self._database:
            self._database.execute("DELETE FROM held WHERE operation = ?", (operation,))
            self._database.execute("DELETE FROM done WHERE operation = ?", (operation,))

    # ---- what was done

    def result(self, operation: str, name: str) -> dict[str, Any] | None:
        """The recorded result of a piece of work."""
        found = self._one("SELECT result FROM done WHERE operation = ? AND name = ?", operation, name)
        return None if found is None else dict(json.loads(found))

    def record(self, operation: str, name: str, result: dict[str, Any]) -> None:
        """Record it."""
        self._database.execute(
            "INSERT OR REPLACE INTO done VALUES (?, ?, ?)", (operation, name, json.dumps(result))
        )

    # ---- what is to be told

    def tell(self, entries: Iterable[Entry]) -> None:
        """Number ``entries`` and keep them until the server has them.  Their own numbers do not count."""
        rows = list(entries)
        full = (self._one("SELECT count(*) FROM entries") or 0) + len(rows) > _MOST_KEPT
        if full:
            rows = [entry for entry in rows if entry.kind in ("step", "step-end")]
        with self._database:
            for entry in rows:
                number = self._last + 1
                self._database.execute(
                    "INSERT INTO entries VALUES (?, ?, ?)",
                    (number, entry.operation, json.dumps(asdict(replace(entry, number=number)))),
                )
                self._last = number
                if entry.source == "guest" and entry.kind == "log":
                    self._database.execute(
                        "UPDATE held SET guest_lines = guest_lines + 1 WHERE operation = ?",
                        (entry.operation,),
                    )

    def untold(self, most: int, size: int) -> list[Entry]:
        """The oldest entries that the server does not have: at most ``most``, of about ``size`` bytes."""
        found: list[Entry] = []
        left = size
        rows = self._database.execute("SELECT entry FROM entries ORDER BY number LIMIT ?", (most,))
        for (text,) in rows:
            left -= len(text)
            if left < 0 and found:
                break
            found.append(decode(Entry, json.loads(text)))
        return found

    def waiting_after(self, number: int) -> set[str]:
        """The operations that have entries beyond ``number`` to tell."""
        rows = self._database.execute("SELECT DISTINCT operation FROM entries WHERE number > ?", (number,))
        return {operation for (operation,) in rows}

    def go_on_after(self, number: int) -> None:
        """The server has seen numbers up to ``number``: an older copy of the file must not use them again."""
        if number <= self._last:
            self.told(number)
            return
        with self._database:
            rows = self._database.execute("SELECT entry FROM entries ORDER BY number").fetchall()
            self._database.execute("DELETE FROM entries")
            self._last = number
            for (text,) in rows:
                self._last += 1
                entry = replace(decode(Entry, json.loads(text)), number=self._last)
                self._database.execute(
                    "INSERT INTO entries VALUES (?, ?, ?)",
                    (self._last, entry.operation, json.dumps(asdict(entry))),
                )

    def told(self, number: int) -> None:
        """The server has everything up to ``number``."""
        self._database.execute("DELETE FROM entries WHERE number <= ?", (number,))

    def put_ending(self, operation: str, end: End) -> None:
        """Keep how it ended until the server has answered."""
        self._database.execute(
            "UPDATE held SET ending = ? WHERE operation = ?", (json.dumps(asdict(end)), operation)
        )

    def take_ending(self, operation: str) -> None:
        """The server has answered."""
        self._database.execute("UPDATE held SET ending = NULL WHERE operation = ?", (operation,))

    def endings(self) -> dict[str, End]:
        """Those that the server has not answered, under the fences that hold now."""
        rows = self._database.execute("SELECT operation, fence, ending FROM held WHERE ending IS NOT NULL")
        return {
            operation: replace(decode(End, json.loads(text)), fence=fence) for operation, fence, text in rows
        }

    def _spool(self) -> str:
        self._database.execute("INSERT OR IGNORE INTO facts VALUES ('spool', ?)", (str(uuid.uuid4()),))
        return str(self._one("SELECT value FROM facts WHERE name = 'spool'"))

    def _one(self, query: str, *values: object) -> Any:
        row = self._database.execute(query, values).fetchone()
        return None if row is None else row[0]
