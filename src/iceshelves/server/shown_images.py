"""From recipes, builds and registry entries to the objects that go out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from iceshelves.server.schemas.common import Failure, Named
from iceshelves.server.schemas.images import (
    ApplianceItem,
    AppliancePort,
    BuildItem,
    CollectedItem,
    GcFile,
    GcWithdrawal,
    ImageItem,
    MovedItem,
    PublishedItem,
    VerifiedItem,
    VerifyFinding,
)
from iceshelves.store.queries.pages import Row

if TYPE_CHECKING:
    from iceshelves.appliances import Recipe
    from iceshelves.images.registry import Entry, GcPlan, Moved, Published, Verification


def appliance(recipe: Recipe) -> ApplianceItem:
    """One appliance in a list."""
    return ApplianceItem(**appliance_members(recipe))


def appliance_members(recipe: Recipe) -> dict[str, Any]:
    """What a list and a page of an appliance have in common."""
    fixed = isinstance(recipe.version, str)
    return {
        "name": recipe.name,
        "title": recipe.title or recipe.name,
        "description": recipe.description,
        "version": recipe.version if isinstance(recipe.version, str) else "",
        "version_from": "" if fixed else getattr(recipe.version, "package", ""),
        "base": f"{recipe.base.distribution}/{recipe.base.release}",
        "architectures": list(recipe.architectures),
        "types": list(recipe.types),
        "ports": [AppliancePort.model_validate(port) for port in recipe.ports],
        "tags": list(recipe.tags),
    }


def build(row: Row) -> BuildItem:
    """One build in a list."""
    return BuildItem(**build_members(row))


def build_members(row: Row) -> dict[str, Any]:
    """What a list and a page of a build have in common."""
    own = ("gate", "error")
    return {
        **{name: getattr(row, name) for name in BuildItem.model_fields if name not in own},
        "gate": None if row.cluster_id is None else Named(id=row.cluster_id, name=row.cluster_name),
        "error": Failure.model_validate(row.error) if row.error else None,
    }


@dataclass(frozen=True, slots=True)
class Shelf:
    """What images are shown with: the aliases that bind to each entry, how often each file was fetched."""

    aliases: Mapping[int, tuple[str, ...]]
    downloads: Mapping[str, int]

    def image(self, entry: Entry) -> ImageItem:
        """One published build."""
        fetched = sum(self.downloads.get(root.sha256, 0) for root in (*entry.roots, *entry.deltas))
        aliases = list(self.aliases.get(entry.id, ()))
        return ImageItem.model_validate({**entry.to_json(), "aliases": aliases, "downloads": fetched})

    def published(self, found: Published) -> PublishedItem:
        """What became of a publication."""
        image = self.image(found.entry)
        return PublishedItem(outcome=found.outcome.value, channel=found.channel, image=image)

    def moved(self, found: Moved) -> MovedItem:
        """What a roll-back moved."""
        return MovedItem(before=self.image(found.before), now=self.image(found.now))


def verified(found: Verification) -> VerifiedItem:
    """What verifying found."""
    return VerifiedItem(
        clean=found.clean,
        findings=[VerifyFinding(**finding.to_json()) for finding in found.findings],
        views=found.views,
        images=found.images,
        files=found.files,
        read=found.read,
        known_good=found.known_good,
    )


def collected(plan: GcPlan, *, dry_run: bool) -> CollectedItem:
    """What went, or would go."""
    return CollectedItem(
        dry_run=dry_run,
        withdrawals=[
            GcWithdrawal(
                channel=withdrawal.group.channel,
                appliance=withdrawal.group.appliance,
                architecture=withdrawal.group.architecture,
                version=withdrawal.entry.version,
                serial=withdrawal.entry.serial,
            )
            for withdrawal in plan.withdrawals
        ],
        files=[GcFile(path=file.path, size=file.size) for file in plan.files],
        bytes=plan.bytes,
    )
