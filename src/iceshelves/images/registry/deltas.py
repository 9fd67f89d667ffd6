"""Deltas: what a client that has an earlier build must fetch to have the newest.  Container images only.

A delta that does not give the target back bit by bit would break every client that trusts it, and one of half
the size hardly pays; neither is kept.  Incus looks up the base of a virtual machine's delta by a hash that it
never stores, and gives up when that fails, so there are none of those.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from iceshelves.core.errors import Failed, TimedOut
from iceshelves.images.registry import entries, xdelta
from iceshelves.images.registry.database import transaction
from iceshelves.images.registry.disk import disk_errors, sync_all
from iceshelves.images.registry.incoming import Arrived
from iceshelves.images.registry.model import Entry, Group, StoredFile
from iceshelves.images.registry.registry import Desk, Registry
from iceshelves.images.simplestreams.names import DELTA, SQUASHFS

#: How many earlier builds get a delta to the newest.
BASES: Final = 3
_PAYS: Final = 0.5


@dataclass(frozen=True, slots=True)
class DeltaReport:
    """Deltas to ``entry``: bytes of those made by their base's serial, and why others were left out."""

    entry: Entry | None
    made: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def make_deltas(registry: Registry, group: Group, bases: int = BASES) -> DeltaReport:
    """Make deltas to the newest build of ``group`` from the ``bases`` before it, and publish those that pay.

    Takes seconds for each.  A missing xdelta3 is no error; the report says so.  Raises :class:`Failed`
    ``registry_unusable``, :class:`Temporary` ``registry_busy``.
    """
    with registry.reading() as connection:
        shown = entries.shown_entries(connection, group)
    if not shown or _squashfs(shown[0]) is None:
        return DeltaReport(None)
    newest, earlier = shown[0], [entry for entry in shown[1:] if _squashfs(entry) is not None]
    have = {delta.base for delta in newest.deltas}
    wanted = [entry for entry in earlier[:bases] if entry.id not in have]
    if not xdelta.is_installed():
        return DeltaReport(newest, {}, {entry.serial: "xdelta3 is not installed" for entry in wanted})
    with disk_errors(), _drafts(registry.layout.incoming) as draft:
        report = DeltaReport(newest)
        made = [_made(registry.layout.images, report, base, draft / uuid.uuid4().hex) for base in wanted]
        arrived = [delta for delta in made if delta is not None]
        if arrived:
            sync_all([delta.path for delta in arrived])
            with registry.writing() as desk, transaction(desk.connection):
                _publish(desk, report, arrived)
    return report


def _squashfs(entry: Entry | None) -> StoredFile | None:
    return next((root for root in entry.roots if root.kind == SQUASHFS), None) if entry else None


@contextmanager
def _drafts(incoming: Path) -> Iterator[Path]:
    """A folder for what is being made; it is empty again at the end."""
    folder = incoming / f"deltas-{uuid.uuid4().hex}"
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        for path in folder.iterdir():
            path.unlink(missing_ok=True)
        folder.rmdir()


def _made(images: Path, report: DeltaReport, base: Entry, draft: Path) -> Arrived | None:
    """The delta from ``base``, safe on disk; nothing, and the reason in ``report``, where it is no use."""
    source, target = _squashfs(base), _squashfs(report.entry)
    if source is None or target is None:
        return None
    reason = _why_not(images / source.name, images / target.name, target, draft)
    if reason is not None:
        report.left_out[base.serial] = reason
        return None
    draft.chmod(0o644)
    with draft.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    report.made[base.serial] = size = draft.stat().st_size
    return Arrived(draft, StoredFile(DELTA, sha256, size, base=base.id))


def _why_not(source: Path, whole: Path, target: StoredFile, draft: Path) -> str | None:
    try:
        xdelta.encode(source, whole, draft)
    except (Failed, TimedOut) as error:
        return error.message
    size = draft.stat().st_size
    if size >= _PAYS * target.size:
        return f"it has {size} bytes, and the whole has {target.size}"
    if not xdelta.gives(source, draft, target.sha256, draft.with_suffix(".again")):
        return "it does not give the image back"
    return None


def _publish(desk: Desk, report: DeltaReport, made: list[Arrived]) -> None:
    """Add the deltas whose ends are both still there: garbage may have been collected meanwhile."""
    wanted = [report.entry.id] if report.entry else []
    there = entries.load(desk.connection, wanted + [each.file.base for each in made if each.file.base])
    ids = {entry.id for entry in there}
    for newest in (entry for entry in there if entry.id in wanted):
        for arrived in made:
            if arrived.file.base in ids:
                entries.add_delta(desk.connection, newest.id, arrived.file)
                desk.accept([arrived])
        desk.touch(newest)
    desk.render()
    desk.shelve()
