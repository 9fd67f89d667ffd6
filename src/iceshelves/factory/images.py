"""Published images, as users see and move them: each change is written down with who made it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from iceshelves.access import audit
from iceshelves.access.policy import Actor
from iceshelves.factory.registries import Registries
from iceshelves.images.files import ImageFiles
from iceshelves.images.registry import (
    STABLE,
    Entry,
    GcPlan,
    Group,
    Moved,
    Publication,
    Published,
    Retention,
    Verification,
    Wanted,
    collect,
    make_deltas,
    plan_gc,
    verify,
)
from iceshelves.store.database import Database


@dataclass(frozen=True, slots=True)
class Act:
    """Who asks, by which request."""

    actor: Actor
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Promotion:
    """The newest build that ``source`` shows, for one architecture or all, comes to ``target`` too."""

    appliance: str
    source: str
    target: str
    architecture: str | None = None


@dataclass(frozen=True, slots=True)
class Upload:
    """Files of an image that was built elsewhere."""

    files: ImageFiles
    channel: str
    aliases: tuple[str, ...] = field(default=())


class PublishedImages:
    """The use cases of published images.  Synchronous: they work on files of this machine."""

    def __init__(self, database: Database, registries: Registries) -> None:
        self._database = database
        self._registries = registries

    def find(self, actor: Actor, wanted: Wanted) -> list[Entry]:
        """The builds that the actor's registry has, newest first."""
        return self._registries.of(actor.tenant_id).find(wanted)

    def aliases(self, actor: Actor, channel: str = STABLE) -> Mapping[int, tuple[str, ...]]:
        """The aliases that bind to each entry in ``channel``, by the entry's id."""
        return self._registries.of(actor.tenant_id).bound_aliases(channel)

    def channels(self, actor: Actor) -> list[str]:
        """The channels that show something."""
        return self._registries.of(actor.tenant_id).channels()

    def tree(self, tenant_id: int) -> Path | None:
        """The folder of a tenant's registry that is served, if there is one."""
        return self._registries.tree_of(tenant_id)

    def publish(self, act: Act, upload: Upload) -> Published:
        """Publish an image whose files were brought, and deltas to it from those before.

        Raises what :meth:`Registry.publish` raises.
        """
        publication = Publication(upload.files, upload.channel, upload.aliases)
        registry = self._registries.of(act.actor.tenant_id)
        published = registry.publish(publication)
        entry = published.entry
        for path in (upload.files.metadata, upload.files.rootfs, upload.files.disk):
            if path is not None:  # what was refused can be published again once its reason is gone
                path.unlink(missing_ok=True)
        make_deltas(registry, Group(published.channel, entry.appliance, entry.architecture))
        self._record(act, "image.publish", f"{entry.appliance} {entry.version}")
        return published

    def promote(self, act: Act, wanted: Promotion) -> Sequence[Published]:
        """Show in another channel what one shows.  Raises what :meth:`Registry.promote` raises."""
        registry = self._registries.of(act.actor.tenant_id)
        published = registry.promote(wanted.appliance, wanted.source, wanted.target, wanted.architecture)
        self._record(act, "image.promote", f"{wanted.appliance} {wanted.source} to {wanted.target}")
        return published

    def roll_back(self, act: Act, group: Group) -> Moved:
        """Withdraw the newest build of ``group``.  Raises what :meth:`Registry.rollback` raises."""
        moved = self._registries.of(act.actor.tenant_id).rollback(group)
        self._record(act, "image.rollback", str(group))
        return moved

    def restore(self, act: Act, group: Group) -> Moved:
        """Take a roll-back back.  Raises what :meth:`Registry.restore` raises."""
        moved = self._registries.of(act.actor.tenant_id).restore(group)
        self._record(act, "image.restore", str(group))
        return moved

    def verify(self, actor: Actor, *, everything: bool) -> Verification:
        """Check the actor's registry; ``everything`` reads files again that were good before."""
        return verify(self._registries.of(actor.tenant_id), everything)

    def plan_gc(self, actor: Actor, retention: Retention) -> GcPlan:
        """What would go now."""
        return plan_gc(self._registries.of(actor.tenant_id), retention)

    def collect(self, act: Act, retention: Retention) -> GcPlan:
        """Remove what may go; what was removed."""
        registry = self._registries.of(act.actor.tenant_id)
        done = collect(registry, plan_gc(registry, retention))
        self._record(act, "image.gc", f"{len(done.files)} files")
        return done

    def _record(self, act: Act, action: str, subject: str) -> None:
        with self._database.write() as session:
            audit.record(session, act.actor, action, subject, request_id=act.request_id)
