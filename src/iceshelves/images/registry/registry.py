"""The registry on disk: publish, promote, roll back, list.

Several processes may use one folder at once.  A publisher brings its files in, then takes the lock, gives
them their names, commits one transaction to the database, and writes the catalogues that changed, each index
last.  Readers take no lock.  A publisher that is killed leaves the old catalogues or the new ones: who opens
the registry for writing next writes the files that the dead one did not come to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from sqlite3 import Connection
from typing import Final

from iceshelves.core.errors import Conflict, NotFound
from iceshelves.images.registry import catalogues, entries
from iceshelves.images.registry.database import Database, transaction
from iceshelves.images.registry.describing import check_publication, describe
from iceshelves.images.registry.disk import disk_errors, make_folder, sync
from iceshelves.images.registry.incoming import Arrival, Arrived, arrivals
from iceshelves.images.registry.layout import Layout
from iceshelves.images.registry.locking import writing
from iceshelves.images.registry.model import (
    STABLE,
    Entry,
    Group,
    Moved,
    Outcome,
    Publication,
    Published,
    Wanted,
)
from iceshelves.images.registry.rendering import bound_aliases, owner_of
from iceshelves.images.simplestreams.names import CONTAINER, check_channel

_EVERYTHING: Final = Wanted()


class Registry:
    """A registry in a folder.  May be used from several threads."""

    def __init__(self, layout: Layout, database: Database) -> None:
        self.layout = layout
        self._database = database

    @classmethod
    def open(cls, root: Path) -> Registry:
        """The registry in ``root``.  Raises :class:`NotFound` ``registry_not_found``."""
        layout = Layout(root)
        if not layout.database.is_file():
            raise NotFound(
                f"There is no registry in {root}.",
                code="registry_not_found",
                hint="Give the folder of a registry, or make one there.",
            )
        return cls(layout, Database(layout.database))

    @classmethod
    def create(cls, root: Path) -> Registry:
        """A new registry in ``root``, made if need be.  Raises :class:`Conflict` ``registry_exists``."""
        layout = Layout(root)
        with disk_errors():
            make_folder(root)
            with writing(layout.lock):
                make_folder(layout.images)
                layout.incoming.mkdir(mode=0o700, exist_ok=True)
                registry = cls(layout, Database.create(layout.database))
        with registry.writing() as desk, transaction(desk.connection):
            catalogues.add_empty_views(desk.connection)
        return registry

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- publishing

    def publish(self, publication: Publication) -> Published:
        """Publish one image; its aliases bind to it from now on.

        An image that the channel shows already is not published again.  Raises :class:`InvalidInput` for
        an image, channel or alias that cannot be published, :class:`Conflict` (``newer_image_shown``,
        ``image_withdrawn``, ``image_shown_already``, ``misleading_alias``), :class:`Temporary`
        ``registry_busy``, :class:`Failed` ``registry_unusable``.
        """
        [published] = self.publish_many([publication])
        return published

    def publish_many(self, publications: Sequence[Publication]) -> list[Published]:
        """Publish all of ``publications`` in one commit, or none.  Raises like :meth:`publish`."""
        for publication in publications:
            check_channel(publication.channel)
        with disk_errors(), arrivals(publications, self.layout.incoming) as arrived:
            with self.writing() as desk, transaction(desk.connection):
                published = [desk.publish(arrival) for arrival in arrived]
                desk.render()
                desk.shelve()
            return published

    def promote(
        self, appliance: str, source: str, target: str, architecture: str | None = None
    ) -> list[Published]:
        """Have channel ``target`` show the newest build that channel ``source`` shows, in one commit.

        For one architecture or, without one, for each that there is.  Raises :class:`NotFound`
        ``image_not_shown``, :class:`Conflict` ``newer_image_shown``, ``image_withdrawn`` and
        ``image_shown_already``.
        """
        check_channel(target)
        with self.writing() as desk, transaction(desk.connection):
            shown = entries.wanted_entries(desk.connection, Wanted(source, appliance, architecture))
            if not shown:
                raise _not_shown(appliance, source, architecture)
            newest: dict[str, Entry] = {}
            for entry in shown:
                newest.setdefault(entry.architecture, entry)
            published = [desk.promote(entry, target) for entry in newest.values()]
            desk.render()
        return published

    def rollback(self, group: Group) -> Moved:
        """Withdraw the newest build that ``group`` shows; aliases bind to the one before.

        It is kept for :meth:`restore` until garbage is collected.  Raises :class:`NotFound`
        ``image_not_shown``, :class:`Conflict` ``nothing_to_roll_back``.
        """
        with self.writing() as desk, transaction(desk.connection):
            shown = entries.shown_entries(desk.connection, group)
            if not shown:
                raise _not_shown(group.appliance, group.channel, group.architecture)
            if len(shown) < 2:
                raise Conflict(
                    f"There is no earlier build of {group}.",
                    code="nothing_to_roll_back",
                    hint="Publish another build; the aliases move to it.",
                )
            desk.withdraw(shown[0], group.channel)
            desk.render()
            [before, now] = entries.load(desk.connection, [shown[0].id, shown[1].id])
        return Moved(group, before, now)

    def restore(self, group: Group) -> Moved:
        """Show the build again that was withdrawn last: the opposite of :meth:`rollback`.

        Raises :class:`Conflict` ``nothing_to_restore`` when there is none newer than what is shown.
        """
        with self.writing() as desk, transaction(desk.connection):
            shown = entries.shown_entries(desk.connection, group)
            hidden = entries.load(desk.connection, entries.withdrawn(desk.connection, group))
            later = [entry for entry in hidden if shown and entry.serial > shown[0].serial]
            if not later:
                raise Conflict(
                    f"No newer build of {group} was withdrawn.",
                    code="nothing_to_restore",
                    hint="A withdrawn build is kept until garbage is collected.",
                )
            desk.show(later[-1], group.channel)
            desk.render()
            [now] = entries.load(desk.connection, [later[-1].id])
        return Moved(group, shown[0], now)

    # ---- looking

    def find(self, wanted: Wanted = _EVERYTHING) -> list[Entry]:
        """Entries by appliance and architecture, newest first."""
        with self._database.reading() as connection:
            return entries.wanted_entries(connection, wanted)

    def bound_aliases(self, channel: str = STABLE) -> dict[int, tuple[str, ...]]:
        """The aliases that bind to each entry in ``channel``, by the entry's id."""
        return bound_aliases(self.find(Wanted(channel)))

    def resolve(self, alias: str, group: Group, image: str = CONTAINER) -> Entry:
        """The build that ``alias`` binds to in ``group``, for a type of image.

        Raises :class:`NotFound` ``image_not_shown``.
        """
        with self._database.reading() as connection:
            entry = owner_of(alias, image, entries.shown_entries(connection, group))
        if entry is None:
            raise _not_shown(alias, group.channel, group.architecture)
        return entry

    def channels(self) -> list[str]:
        """The channels that show something, by name."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT DISTINCT channel FROM shown WHERE ended IS NULL ORDER BY channel"
            )
            return [row[0] for row in rows]

    # ---- mending

    def rewrite(self) -> None:
        """Write all catalogues anew, whatever became of their files."""
        with self.writing() as desk, transaction(desk.connection):
            catalogues.rewrite(desk.connection)

    def recover(self) -> None:
        """Finish what a killed publisher left."""
        with self._database.reading() as connection:
            [dirty] = connection.execute(
                "SELECT EXISTS (SELECT 1 FROM shard WHERE dirty) OR EXISTS (SELECT 1 FROM view WHERE dirty)"
            ).fetchone()
        if dirty:
            with self.writing():
                return

    # ---- for this package

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """The database as it is now."""
        with self._database.reading() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Desk]:
        """The only writer's desk; catalogues are written at the end, and before that those left undone."""
        with disk_errors(), writing(self.layout.lock), self._database.working() as connection:
            catalogues.write_out(connection, self.layout)
            yield Desk(self.layout, connection)
            catalogues.write_out(connection, self.layout)


@dataclass
class Desk:
    """What the one writer works with; everything happens in the writer's transaction."""

    layout: Layout
    connection: Connection
    _touched: dict[Group, None] = field(default_factory=dict)
    _moves: dict[str, Path] = field(default_factory=dict)

    def publish(self, arrival: Arrival) -> Published:
        """Add an arrival, or find it; have its channel show it."""
        publication = arrival.publication
        description = describe(arrival.metadata)
        check_publication(publication, description)
        fingerprints = {arrived.file.fingerprint for arrived in arrival.files if arrived.file.fingerprint}
        known = entries.same_image(self.connection, description, fingerprints)
        if known is None:
            files = [arrived.file for arrived in arrival.files]
            new = entries.add(self.connection, description, publication, files)
            self.accept(arrival.files)
            return self.show(self._entry(new), publication.channel, Outcome.PUBLISHED)
        relabelled = entries.describe_anew(self.connection, known, publication)
        entry = self._entry(known)
        if relabelled:
            self.touch(entry)
        group = Group(publication.channel, entry.appliance, entry.architecture)
        if known in entries.withdrawn(self.connection, group):
            raise Conflict(
                f"This build of {group} was withdrawn, so it is not published again.",
                code="image_withdrawn",
                hint="Restore it if it is good after all, or build another.",
            )
        if relabelled and publication.channel in entry.channels:
            return Published(entry, publication.channel, Outcome.RELABELLED)
        return self.show(entry, publication.channel)

    def show(self, entry: Entry, channel: str, outcome: Outcome = Outcome.PROMOTED) -> Published:
        """Have ``channel`` show ``entry``, which is to be the newest there."""
        if channel in entry.channels:
            return Published(entry, channel, Outcome.UNCHANGED)
        group = Group(channel, entry.appliance, entry.architecture)
        shown = entries.shown_entries(self.connection, group)
        if shown and shown[0].serial > entry.serial:
            raise Conflict(
                f"{channel} shows a newer build of {entry.appliance} for {entry.architecture}: "
                f"{shown[0].version} of {shown[0].serial}.",
                code="newer_image_shown",
                hint="Roll that one back first; aliases bind to the newest build.",
            )
        for fingerprint in entry.fingerprints.values():
            other = entries.shown_elsewhere(self.connection, fingerprint, channel, entry.id)
            if other is not None:
                raise Conflict(
                    f"{channel} shows this very image as {other}.",
                    code="image_shown_already",
                    hint="Clients refuse an image that is listed twice; publish only the files that are new.",
                )
        entries.show(self.connection, entry.id, channel)
        shown_now = self._entry(entry.id)
        self.touch(shown_now)
        return Published(shown_now, channel, outcome)

    def promote(self, entry: Entry, channel: str) -> Published:
        """Have ``channel`` show what another shows, unless it was withdrawn there."""
        group = Group(channel, entry.appliance, entry.architecture)
        if entry.id in entries.withdrawn(self.connection, group):
            raise Conflict(
                f"This build of {group} was withdrawn, so it is not promoted again.",
                code="image_withdrawn",
                hint="Restore it if it is good after all, or build another.",
            )
        return self.show(entry, channel)

    def withdraw(self, entry: Entry, channel: str) -> None:
        """Have ``channel`` show ``entry`` no longer."""
        self.touch(entry)
        entries.withdraw(self.connection, entry.id, channel)

    def accept(self, files: Iterable[Arrived]) -> None:
        """Have :meth:`shelve` take ``files``."""
        self._moves |= {arrived.file.name: arrived.path for arrived in files}

    def render(self) -> None:
        """Bring the text of all catalogues that were touched up to date."""
        catalogues.render(self.connection, self._touched)
        self._touched.clear()

    def shelve(self) -> None:
        """Give accepted files their names; they are safe before the transaction is."""
        for name, path in self._moves.items():
            path.rename(self.layout.images / name)
        if self._moves:
            sync(self.layout.images)
        self._moves.clear()

    def touch(self, entry: Entry) -> None:
        """Have the catalogues that show ``entry`` made anew."""
        for channel in entry.channels:
            self._touched[Group(channel, entry.appliance, entry.architecture)] = None

    def _entry(self, entry: int) -> Entry:
        [found] = entries.load(self.connection, [entry])
        return found


def _not_shown(appliance: str, channel: str, architecture: str | None) -> NotFound:
    place = f"{channel} for {architecture}" if architecture else channel
    return NotFound(
        f"There is no image of {appliance!r} in {place}.",
        code="image_not_shown",
        hint="List the images to see what there is.",
    )
