"""A registry in a folder, used without a server and by as many at once as like."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import click

from iceshelves.cli.shelf import Answer, Group, NewImage, Promotion, Retention, Wanted
from iceshelves.core.errors import Conflict, NotFound
from iceshelves.images import registry as registries
from iceshelves.images.files import ImageFiles
from iceshelves.images.registry import (
    Entry,
    GcPlan,
    Layout,
    Moved,
    Publication,
    Published,
    Registry,
    Verification,
    collect,
    make_deltas,
    plan_gc,
    verify,
    verify_tree,
)
from iceshelves.images.registry.layout import INDEX


class FolderShelf:
    """A registry in a folder, used without a server and by as many at once as like."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def option(self) -> str:
        """Name the folder."""
        return f" --tree {shlex.quote(str(self._folder))}"

    @property
    def next_step(self) -> str:
        """Say how to serve it."""
        return f"iceshelves image serve{self.option}   iceshelves image push{self.option} DESTINATION"

    def images(self, wanted: Wanted, limit: int) -> list[Answer]:
        """Read the folder."""
        with self._registry() as registry:
            found = registry.find(registries.Wanted(**asdict(wanted)))
            images = _Images(registry, wanted.channel)
            return [images.of(entry) for entry in (found[:limit] if limit else found)]

    def publish(self, image: NewImage) -> Answer:
        """Publish into the folder; a new registry is made there if need be, which is told."""
        files = ImageFiles(image.metadata, image.rootfs, image.disk)
        self._make()
        with self._registry() as registry:
            published = registry.publish(Publication(files, image.channel, image.aliases))
            entry = published.entry
            make_deltas(registry, registries.Group(image.channel, entry.appliance, entry.architecture))
            return _published(registry, published)

    def promote(self, promotion: Promotion) -> list[Answer]:
        """Promote in the folder."""
        with self._registry() as registry:
            return [_published(registry, each) for each in registry.promote(**asdict(promotion))]

    def roll_back(self, group: Group) -> Answer:
        """Roll back in the folder."""
        with self._registry() as registry:
            return _moved(registry, registry.rollback(registries.Group(**asdict(group))))

    def restore(self, group: Group) -> Answer:
        """Restore in the folder."""
        with self._registry() as registry:
            return _moved(registry, registry.restore(registries.Group(**asdict(group))))

    def verify(self, *, everything: bool) -> Answer:
        """Check the folder; also one that is only a copy of a registry's tree."""
        if not Layout(self._folder).database.exists():
            return _verified(verify_tree(tree_in(self._folder)))
        with self._registry() as registry:
            return _verified(verify(registry, everything))

    def plan_gc(self, retention: Retention) -> Answer:
        """Look over the folder."""
        with self._registry() as registry:
            return _collected(_plan(registry, retention), dry_run=True)

    def collect(self, retention: Retention) -> Answer:
        """Clear the folder up."""
        with self._registry() as registry:
            return _collected(collect(registry, _plan(registry, retention)), dry_run=False)

    def _make(self) -> None:
        if Layout(self._folder).database.exists():
            return
        try:
            Registry.create(self._folder).close()
        except Conflict:
            return  # another publisher was faster
        click.echo(f"Made a registry in {self._folder}.", err=True)

    @contextmanager
    def _registry(self) -> Iterator[Registry]:
        try:
            registry = Registry.open(self._folder)
        except NotFound as error:
            error.hint = _how_to_make(self._folder)
            raise
        with registry:
            yield registry


def tree_in(folder: Path) -> Path:
    """What of ``folder`` is served: the tree of a registry, or all of it where it is a copy of one.

    Raises :class:`NotFound` ``tree_not_found``.
    """
    layout = Layout(folder)
    if layout.database.exists():
        return layout.tree
    if (folder / INDEX).is_file():
        return folder
    raise NotFound(
        f"There is no registry in {folder}, and no copy of one.",
        code="tree_not_found",
        hint=_how_to_make(folder),
    )


def _how_to_make(folder: Path) -> str:
    return f"Publishing makes one: iceshelves image publish METADATA ROOTFS --tree {folder}"


def _plan(registry: Registry, retention: Retention) -> GcPlan:
    return plan_gc(registry, registries.Retention(**asdict(retention)))


class _Images:
    """Entries of a registry as images, with the aliases that bind to them in ``channel`` (or in stable)."""

    def __init__(self, registry: Registry, channel: str | None) -> None:
        self._bound = registry.bound_aliases() if channel is None else registry.bound_aliases(channel)

    def of(self, entry: Entry) -> Answer:
        return {**entry.to_json(), "aliases": list(self._bound.get(entry.id, ()))}


def _published(registry: Registry, found: Published) -> Answer:
    image = _Images(registry, found.channel).of(found.entry)
    return {"outcome": found.outcome.value, "channel": found.channel, "image": image}


def _moved(registry: Registry, found: Moved) -> Answer:
    images = _Images(registry, found.group.channel)
    return {"before": images.of(found.before), "now": images.of(found.now)}


def _verified(found: Verification) -> Answer:
    numbers = ("views", "images", "files", "read", "known_good")
    return {
        "clean": found.clean,
        "findings": [finding.to_json() for finding in found.findings],
        **{name: getattr(found, name) for name in numbers},
    }


def _collected(plan: GcPlan, *, dry_run: bool) -> Answer:
    return {
        "dry_run": dry_run,
        "withdrawals": [
            {**asdict(each.group), "version": each.entry.version, "serial": each.entry.serial}
            for each in plan.withdrawals
        ],
        "files": [{"path": file.path, "size": file.size} for file in plan.files],
        "bytes": plan.bytes,
    }
