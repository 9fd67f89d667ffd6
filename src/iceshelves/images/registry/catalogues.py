"""Catalogue files, each a shard of a view that is small enough to be written anew with every commit.

A group's text is put into the newest shard with room when the group first appears, and stays there for good:
clients cache an index and its catalogues apart from one another, for up to an hour, and a product that moved
would be in both or in neither.  A shard that has lost all its products leaves the index, but its file stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from sqlite3 import Connection
from typing import Final

from iceshelves.images.registry import entries
from iceshelves.images.registry.database import hasty, transaction
from iceshelves.images.registry.disk import make_folder, replace_texts
from iceshelves.images.registry.layout import IMAGES, INDEX, STREAMS, Layout, View, stream_name, views_of
from iceshelves.images.registry.model import STABLE, Group
from iceshelves.images.registry.rendering import check_aliases, products_of
from iceshelves.images.simplestreams.rendering import (
    catalogue_text,
    names_text,
    product_text,
    raw_index_text,
)

#: Bytes of text from which on a shard takes no further group.
SHARD: Final = 256 * 1024
_OWN_PATH: Final = f'"path":"{IMAGES}/'


def render(connection: Connection, groups: Iterable[Group]) -> None:
    """Bring the text of ``groups`` and of their catalogues up to date, in the caller's transaction.

    Raises :class:`Conflict` ``misleading_alias``.
    """
    touched: dict[tuple[str, int], None] = {}
    for group in dict.fromkeys(groups):
        shown = entries.shown_entries(connection, group)
        products = products_of(group, shown)
        check_aliases(group, shown, products)
        text = ",\n".join(product_text(product) for product in products)
        section = _store(connection, group, text, names_text(product.key for product in products))
        for view in views_of(group.channel, group.architecture):
            touched[view.path, _shard(connection, view, section, len(text))] = None
        entries.note_needs(connection, group.appliance, group.architecture)
    for view_path, number in touched:
        _sum_up(connection, view_path, number)


def add_empty_views(connection: Connection) -> None:
    """The views that a registry has from the start: it can be added as a remote before its first image."""
    connection.executemany("INSERT INTO view VALUES (?, 1)", [("",), (STABLE,)])


def rewrite(connection: Connection) -> None:
    """Render every group, and mark every file as older than its text."""
    groups = connection.execute("SELECT channel, appliance, architecture FROM section").fetchall()
    render(connection, (Group(*group) for group in groups))
    connection.execute("UPDATE shard SET dirty = 1")
    connection.execute("UPDATE view SET dirty = 1")


def expected_files(connection: Connection) -> Iterator[tuple[str, str]]:
    """Path below the tree and text of every index and catalogue."""
    for path, number in connection.execute("SELECT view, number FROM shard").fetchall():
        view = View(path, "")
        yield f"{view.prefix}{STREAMS}/{stream_name(number)}.json", _shard_text(connection, view, number)
    for (path,) in connection.execute("SELECT path FROM view").fetchall():
        yield f"{View(path, '').prefix}{INDEX}", _index_text(connection, path)


def write_out(connection: Connection, layout: Layout) -> None:
    """Write every catalogue whose file is older than its text, and every index after its catalogues."""
    shards = connection.execute("SELECT view, number FROM shard WHERE dirty").fetchall()
    views = {row[0] for row in connection.execute("SELECT path FROM view WHERE dirty")}
    if not shards and not views:
        return
    folders = {path: View(path, "").folder(layout.tree) for path in {*views, *(view for view, _ in shards)}}
    for folder in folders.values():
        make_folder(folder)
    replace_texts(
        {
            folders[path] / f"{stream_name(number)}.json": _shard_text(connection, View(path, ""), number)
            for path, number in shards
        },
        {folders[path] / "index.json": _index_text(connection, path) for path in views},
    )
    with hasty(connection), transaction(connection):
        connection.execute("UPDATE shard SET dirty = 0 WHERE dirty")
        connection.execute("UPDATE view SET dirty = 0 WHERE dirty")


def _store(connection: Connection, group: Group, text: str, names: str) -> int:
    [section] = connection.execute(
        "INSERT INTO section (channel, appliance, architecture, text, names) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT DO UPDATE SET text = excluded.text, names = excluded.names RETURNING id",
        (group.channel, group.appliance, group.architecture, text, names),
    ).fetchone()
    return int(section)


def _shard(connection: Connection, view: View, section: int, size: int) -> int:
    """The shard of ``view`` in which ``section`` stands; a new section gets a place."""
    row = connection.execute(
        "SELECT shard FROM place WHERE view = ? AND section = ?", (view.path, section)
    ).fetchone()
    if row is not None:
        return int(row[0])
    connection.execute("INSERT OR IGNORE INTO view VALUES (?, 1)", (view.path,))
    newest = connection.execute(
        "SELECT number, bytes FROM shard WHERE view = ? ORDER BY number DESC LIMIT 1", (view.path,)
    ).fetchone()
    if newest is None or newest[1] + size > SHARD:
        newest = (newest[0] + 1 if newest else 1, 0)
        connection.execute("INSERT INTO shard VALUES (?, ?, 0, '', 1)", (view.path, newest[0]))
    connection.execute(
        "UPDATE shard SET bytes = bytes + ? WHERE view = ? AND number = ?", (size, view.path, newest[0])
    )
    connection.execute("INSERT INTO place VALUES (?, ?, ?)", (view.path, section, newest[0]))
    return int(newest[0])


def _sum_up(connection: Connection, view: str, number: int) -> None:
    """Mark a shard as changed, and its view's index where it must name other products than before."""
    rows = connection.execute(
        "SELECT length(s.text), s.names FROM place p JOIN section s ON s.id = p.section "
        "WHERE p.view = ? AND p.shard = ? AND s.text <> '' ORDER BY p.section",
        (view, number),
    ).fetchall()
    names = ",".join(row[1] for row in rows)
    [before] = connection.execute(
        "SELECT names FROM shard WHERE view = ? AND number = ?", (view, number)
    ).fetchone()
    connection.execute(
        "UPDATE shard SET bytes = ?, names = ?, dirty = 1 WHERE view = ? AND number = ?",
        (sum(row[0] for row in rows), names, view, number),
    )
    if names != before:
        connection.execute("UPDATE view SET dirty = 1 WHERE path = ?", (view,))


def _shard_text(connection: Connection, view: View, number: int) -> str:
    rows = connection.execute(
        "SELECT s.text FROM place p JOIN section s ON s.id = p.section "
        "WHERE p.view = ? AND p.shard = ? AND s.text <> '' ORDER BY p.section",
        (view.path, number),
    )
    text = catalogue_text(stream_name(number), (row[0] for row in rows))
    return text.replace(_OWN_PATH, f'"path":"{view.images}/')


def _index_text(connection: Connection, view: str) -> str:
    rows = connection.execute(
        "SELECT number, names FROM shard WHERE view = ? AND names <> '' ORDER BY number", (view,)
    )
    streams = ((stream_name(number), names) for number, names in rows)
    return raw_index_text((name, f"{STREAMS}/{name}.json", names) for name, names in streams)
