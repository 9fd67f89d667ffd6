"""Garbage: builds that retention lets go, and files that nobody needs.

A plan is made without the lock and says exactly what would go, to the byte; carrying it out looks at each
thing again under the lock, so that publishers may work meanwhile.  What was shown once stays for a grace,
since clients keep an index for an hour and may ask for what it names.  Only files that are named by content
are ever removed; a stranger's file among the images stays.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from sqlite3 import Connection
from typing import Final, NamedTuple

from iceshelves.core.errors import InvalidInput
from iceshelves.images.registry import entries
from iceshelves.images.registry.database import transaction
from iceshelves.images.registry.disk import disk_errors
from iceshelves.images.registry.layout import Layout
from iceshelves.images.registry.model import Entry, Group, file_name
from iceshelves.images.registry.registry import Desk, Registry

_CACHE: Final = 3600
_LEFT_BEHIND: Final = 86400
OURS: Final = re.compile(r"[0-9a-f]{64}\.(?:tar\.xz|squashfs|qcow2|vcdiff)")


@dataclass(frozen=True, slots=True)
class Retention:
    """What stays: in each group of a channel the ``newest`` builds, and all younger than ``days``.

    What goes out of a channel stays on disk for ``grace`` seconds more.
    """

    newest: int = 5
    days: float = 30
    grace: int = 48 * 3600


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """A build that a channel is to show no longer."""

    group: Group
    entry: Entry


@dataclass(frozen=True, slots=True)
class Waste:
    """A file that is to go: its path below the registry's root, and its bytes."""

    path: str
    size: int


@dataclass(frozen=True, slots=True)
class GcPlan:
    """What would go: out of channels, out of the books, and off the disk."""

    withdrawals: tuple[Withdrawal, ...]
    forgotten: tuple[Entry, ...]
    deltas: tuple[str, ...]
    files: tuple[Waste, ...]
    retention: Retention

    @property
    def bytes(self) -> int:
        """Bytes that the disk gets back."""
        return sum(file.size for file in self.files)


def plan_gc(registry: Registry, retention: Retention) -> GcPlan:
    """What ``retention`` lets go now; changes nothing.

    Raises :class:`InvalidInput` ``invalid_retention``.
    """
    if retention.newest < 1 or retention.days < 0 or retention.grace < _CACHE:
        raise InvalidInput(
            "That retention would break clients.",
            code="invalid_retention",
            hint="Keep at least one build of each, and give a grace of an hour or more.",
        )
    with disk_errors(), registry.reading() as connection:
        return _plan(connection, registry.layout, retention)


def collect(registry: Registry, plan: GcPlan) -> GcPlan:
    """Carry out ``plan``; what was really done, which is less where something has changed since.

    Raises :class:`Temporary` ``registry_busy``, :class:`Failed` ``registry_unusable``.
    """
    with registry.writing() as desk:
        with transaction(desk.connection):
            now = _plan(desk.connection, registry.layout, plan.retention)
            done = _common(plan, now)
            _change_books(desk, done)
        needed = {file.name for file in _items(desk.connection)}
        gone = (file for file in done.files if Path(file.path).name not in needed)
        removed = tuple(file for file in gone if _removed(registry.layout.root / file.path))
    return replace(done, files=removed)


def _common(plan: GcPlan, now: GcPlan) -> GcPlan:
    """What of ``plan`` still holds ``now``."""
    withdrawals = {(each.group, each.entry.id) for each in now.withdrawals}
    forgotten, deltas, files = {each.id for each in now.forgotten}, set(now.deltas), set(now.files)
    return GcPlan(
        tuple(each for each in plan.withdrawals if (each.group, each.entry.id) in withdrawals),
        tuple(each for each in plan.forgotten if each.id in forgotten),
        tuple(each for each in plan.deltas if each in deltas),
        tuple(each for each in plan.files if each in files),
        plan.retention,
    )


def _plan(connection: Connection, layout: Layout, retention: Retention) -> GcPlan:
    now = entries.seconds_now()
    late = now - retention.grace
    forgotten = [row[0] for row in connection.execute(
        "SELECT id FROM entry WHERE unneeded_since <= ?", (late,)
    )]  # fmt: skip
    deltas = [row[0] for row in connection.execute(
        "SELECT sha256 FROM item WHERE base IS NOT NULL AND unneeded_since <= ?", (late,)
    )]  # fmt: skip
    items = _items(connection)
    known = {file.name for file in items}
    gone = set(forgotten)
    kept = {
        file.name for file in items
        if file.entry not in gone and file.base not in gone
        and not (file.base and file.unneeded_since <= late)
    }  # fmt: skip
    files = [
        Waste(f"{layout.images.relative_to(layout.root)}/{name}", size)
        for name, size, changed in _ours(layout.images)
        if name not in kept and (name in known or changed <= late)
    ]
    return GcPlan(
        tuple(_withdrawals(connection, retention, now)),
        tuple(entries.load(connection, forgotten)),
        tuple(deltas),
        (*files, *_left_behind(layout, now - _LEFT_BEHIND)),
        retention,
    )


class _Item(NamedTuple):
    name: str
    entry: int
    base: int | None
    unneeded_since: float


def _items(connection: Connection) -> list[_Item]:
    rows = connection.execute("SELECT kind, sha256, entry, base, unneeded_since FROM item")
    return [
        _Item(file_name(kind, sha256), entry, base, math.inf if since is None else since)
        for kind, sha256, entry, base, since in rows
    ]


def _withdrawals(connection: Connection, retention: Retention, now: int) -> Iterator[Withdrawal]:
    old = now - retention.days * 86400
    rows = connection.execute(
        "SELECT id, channel, appliance, architecture FROM (SELECT e.*, s.channel, s.since, row_number() OVER "
        "(PARTITION BY s.channel, e.appliance, e.architecture ORDER BY e.serial DESC) AS place "
        "FROM shown s JOIN entry e ON e.id = s.entry WHERE s.ended IS NULL) WHERE place > ? AND since <= ?",
        (retention.newest, old),
    ).fetchall()
    loaded = {entry.id: entry for entry in entries.load(connection, [row[0] for row in rows])}
    for entry, channel, appliance, architecture in rows:
        yield Withdrawal(Group(channel, appliance, architecture), loaded[entry])


def _ours(folder: Path) -> Iterator[tuple[str, int, float]]:
    """Name, bytes and time of change of each file that is named by content."""
    with os.scandir(folder) as found:
        for entry in sorted(found, key=lambda each: each.name):
            if OURS.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                state = entry.stat(follow_symlinks=False)
                yield entry.name, state.st_size, state.st_mtime


def _left_behind(layout: Layout, before: float) -> Iterator[Waste]:
    """What publishers that were killed have brought in."""
    for path in sorted(layout.incoming.rglob("*")):
        with suppress(FileNotFoundError):  # its publisher lives
            state = path.lstat()
            if stat.S_ISREG(state.st_mode) and state.st_mtime <= before:
                yield Waste(str(path.relative_to(layout.root)), state.st_size)


def _change_books(desk: Desk, plan: GcPlan) -> None:
    for withdrawal in plan.withdrawals:
        desk.withdraw(withdrawal.entry, withdrawal.group.channel)
    many = json.dumps([entry.id for entry in plan.forgotten])
    desk.connection.execute("DELETE FROM entry WHERE id IN (SELECT value FROM json_each(?))", (many,))
    desk.connection.execute(
        "DELETE FROM item WHERE base IS NOT NULL AND unneeded_since IS NOT NULL "
        "AND sha256 IN (SELECT value FROM json_each(?))",
        (json.dumps(plan.deltas),),
    )
    names = json.dumps([Path(file.path).name for file in plan.files])
    desk.connection.execute("DELETE FROM good WHERE name IN (SELECT value FROM json_each(?))", (names,))
    desk.render()


def _removed(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    if path.parent.name.startswith("deltas-"):
        with suppress(OSError):  # others are in it
            path.parent.rmdir()
    return True
