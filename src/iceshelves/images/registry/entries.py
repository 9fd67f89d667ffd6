"""Entries in the database: read as values, added, shown in channels and taken out of them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from sqlite3 import Connection
from typing import Any

from iceshelves.core import clock
from iceshelves.images.registry.describing import Description
from iceshelves.images.registry.model import Entry, Group, Publication, StoredFile, Wanted, file_name
from iceshelves.images.simplestreams.names import next_serial


def seconds_now() -> int:
    """The current time as the database has it."""
    return int(clock.now().timestamp())


def wanted_entries(connection: Connection, wanted: Wanted) -> list[Entry]:
    """Entries by appliance and architecture, newest first."""
    if wanted.channel is None:
        found = connection.execute(
            "SELECT id FROM entry WHERE (?1 IS NULL OR appliance = ?1) AND (?2 IS NULL OR architecture = ?2)",
            (wanted.appliance, wanted.architecture),
        )
    else:
        found = connection.execute(
            "SELECT e.id FROM shown s JOIN entry e ON e.id = s.entry "
            "WHERE s.channel = ?3 AND s.ended IS NULL AND (?1 IS NULL OR e.appliance = ?1) "
            "AND (?2 IS NULL OR e.architecture = ?2)",
            (wanted.appliance, wanted.architecture, wanted.channel),
        )
    return load(connection, [row[0] for row in found])


def shown_entries(connection: Connection, group: Group) -> list[Entry]:
    """What ``group`` shows, newest first."""
    return wanted_entries(connection, Wanted(group.channel, group.appliance, group.architecture))


def load(connection: Connection, ids: Sequence[int]) -> list[Entry]:
    """The entries ``ids``, by appliance and architecture, newest first."""
    if not ids:
        return []
    many = json.dumps(ids)
    files: defaultdict[int, list[StoredFile]] = defaultdict(list)
    for entry, *file in connection.execute(
        "SELECT entry, kind, sha256, size, fingerprint, base FROM item "
        "WHERE entry IN (SELECT value FROM json_each(?)) ORDER BY rowid",
        (many,),
    ):
        files[entry].append(StoredFile(*file))
    channels: defaultdict[int, list[str]] = defaultdict(list)
    for entry, channel in connection.execute(
        "SELECT entry, channel FROM shown "
        "WHERE ended IS NULL AND entry IN (SELECT value FROM json_each(?)) ORDER BY channel",
        (many,),
    ):
        channels[entry].append(channel)
    rows = connection.execute(
        "SELECT id, appliance, architecture, version, serial, os, release, description, aliases, "
        "requirements, published FROM entry WHERE id IN (SELECT value FROM json_each(?)) "
        "ORDER BY appliance, architecture, serial DESC",
        (many,),
    )
    return [_entry(row, files, channels) for row in rows]


def _entry(
    row: tuple[Any, ...], files: Mapping[int, list[StoredFile]], channels: Mapping[int, list[str]]
) -> Entry:
    identity, appliance, architecture, version, serial, os, release, description, aliases, needs, moment = row
    return Entry(
        identity,
        appliance,
        architecture,
        version,
        serial,
        os,
        release,
        description,
        tuple(json.loads(aliases)) if aliases != "[]" else (),
        json.loads(needs) if needs != "{}" else {},
        datetime.fromtimestamp(moment, UTC),
        tuple(files[identity]),
        tuple(channels[identity]),
    )


def all_files(connection: Connection) -> list[tuple[str, int]]:
    """Name and bytes of every file that an entry needs, shown or not."""
    rows = connection.execute("SELECT kind, sha256, size FROM item")
    return [(file_name(kind, sha256), size) for kind, sha256, size in rows]


def same_image(connection: Connection, description: Description, fingerprints: set[str]) -> int | None:
    """The entry that has these very images already, under the same name and version."""
    rows = connection.execute(
        "SELECT e.id, i.fingerprint FROM entry e JOIN item i ON i.entry = e.id WHERE e.id IN "
        "(SELECT entry FROM item WHERE fingerprint = ?1) AND i.fingerprint IS NOT NULL "
        "AND e.appliance = ?2 AND e.architecture = ?3 AND e.version = ?4",
        (min(fingerprints), description.appliance, description.architecture, description.version),
    )
    found: defaultdict[int, set[str]] = defaultdict(set)
    for entry, fingerprint in rows:
        found[entry].add(fingerprint)
    return next((entry for entry, theirs in found.items() if theirs >= fingerprints), None)


def shown_elsewhere(connection: Connection, fingerprint: str, channel: str, entry: int) -> str | None:
    """Name and version of another entry with that image in ``channel``, if there is one."""
    row = connection.execute(
        "SELECT e.appliance || ' ' || e.version FROM item i JOIN shown s ON s.entry = i.entry "
        "JOIN entry e ON e.id = i.entry "
        "WHERE i.fingerprint = ? AND s.channel = ? AND s.ended IS NULL AND i.entry <> ?",
        (fingerprint, channel, entry),
    ).fetchone()
    return str(row[0]) if row else None


def add(
    connection: Connection, description: Description, publication: Publication, files: Iterable[StoredFile]
) -> int:
    """A new entry, newer than all of its series; its id."""
    serial = _next_serial(connection, description)
    cursor = connection.execute(
        "INSERT INTO entry (appliance, architecture, version, serial, os, release, description, aliases, "
        "requirements, published) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            description.appliance,
            description.architecture,
            description.version,
            serial,
            description.os,
            description.release,
            description.description,
            json.dumps(publication.aliases),
            json.dumps(dict(publication.requirements), sort_keys=True),
            seconds_now(),
        ),
    )
    entry = int(cursor.lastrowid or 0)
    connection.executemany(
        "INSERT INTO item (entry, kind, sha256, size, fingerprint) VALUES (?, ?, ?, ?, ?)",
        [(entry, file.kind, file.sha256, file.size, file.fingerprint) for file in files],
    )
    return entry


def describe_anew(connection: Connection, entry: int, publication: Publication) -> bool:
    """Give ``entry`` the aliases and requirements of ``publication``; whether that changed anything."""
    aliases = json.dumps(publication.aliases)
    requirements = json.dumps(dict(publication.requirements), sort_keys=True)
    changed = connection.execute(
        "UPDATE entry SET aliases = ?1, requirements = ?2 "
        "WHERE id = ?3 AND (aliases <> ?1 OR requirements <> ?2)",
        (aliases, requirements, entry),
    )
    return changed.rowcount > 0


def show(connection: Connection, entry: int, channel: str) -> None:
    """Have ``channel`` show ``entry``, again if it did before."""
    connection.execute(
        "INSERT INTO shown (entry, channel, since) VALUES (?1, ?2, ?3) "
        "ON CONFLICT DO UPDATE SET ended = NULL, since = ?3",
        (entry, channel, seconds_now()),
    )


def withdraw(connection: Connection, entry: int, channel: str) -> None:
    """Have ``channel`` show ``entry`` no longer."""
    connection.execute(
        "UPDATE shown SET ended = ? WHERE entry = ? AND channel = ? AND ended IS NULL",
        (seconds_now(), entry, channel),
    )


def withdrawn(connection: Connection, group: Group) -> list[int]:
    """Entries that ``group`` showed and shows no longer, the newest first."""
    rows = connection.execute(
        "SELECT e.id FROM shown s JOIN entry e ON e.id = s.entry WHERE s.channel = ? AND e.appliance = ? "
        "AND e.architecture = ? AND s.ended IS NOT NULL ORDER BY e.serial DESC",
        (group.channel, group.appliance, group.architecture),
    )
    return [row[0] for row in rows]


def note_needs(connection: Connection, appliance: str, architecture: str) -> None:
    """Record since when entries of a series, and deltas of it, are needed no longer; or that they are again.

    An entry is needed while a channel shows it, a delta while one shows its base too and nothing newer.
    """
    moment = seconds_now()
    connection.execute(
        "UPDATE entry SET unneeded_since = CASE WHEN EXISTS "
        "(SELECT 1 FROM shown WHERE entry = entry.id AND ended IS NULL) "
        "THEN NULL ELSE coalesce(unneeded_since, ?) END WHERE appliance = ? AND architecture = ?",
        (moment, appliance, architecture),
    )
    needed = connection.execute(
        "SELECT i.rowid FROM item i JOIN entry e ON e.id = i.entry JOIN shown s ON s.entry = e.id "
        "JOIN shown b ON b.entry = i.base AND b.channel = s.channel "
        "WHERE e.appliance = ?1 AND e.architecture = ?2 AND s.ended IS NULL AND b.ended IS NULL "
        "AND NOT EXISTS (SELECT 1 FROM shown t JOIN entry n ON n.id = t.entry "
        "WHERE n.appliance = ?1 AND n.architecture = ?2 AND t.channel = s.channel "
        "AND t.ended IS NULL AND n.serial > e.serial)",
        (appliance, architecture),
    )
    connection.execute(
        "UPDATE item SET unneeded_since = CASE WHEN rowid IN (SELECT value FROM json_each(?1)) "
        "THEN NULL ELSE coalesce(unneeded_since, ?2) END "
        "WHERE base IS NOT NULL "
        "AND entry IN (SELECT id FROM entry WHERE appliance = ?3 AND architecture = ?4)",
        (json.dumps([row[0] for row in needed]), moment, appliance, architecture),
    )


def add_delta(connection: Connection, entry: int, delta: StoredFile) -> None:
    """A delta to the squashfs of ``entry``."""
    connection.execute(
        "INSERT INTO item (entry, kind, sha256, size, base) VALUES (?, ?, ?, ?, ?)",
        (entry, delta.kind, delta.sha256, delta.size, delta.base),
    )


def _next_serial(connection: Connection, description: Description) -> str:
    """The image's own serial, or the minute after the newest of its series when that is later."""
    series = (description.appliance, description.architecture)
    row = connection.execute(
        "SELECT newest FROM series WHERE appliance = ? AND architecture = ?", series
    ).fetchone()
    serial = description.serial if row is None else max(description.serial, next_serial(row[0]))
    connection.execute(
        "INSERT INTO series VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET newest = excluded.newest",
        (*series, serial),
    )
    return serial
