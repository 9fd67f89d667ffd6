"""The image registry: a folder that Incus and LXD clients read as an image server, and its books.

``ROOT/tree`` is what is served, by any web server; the rest of ``ROOT`` is the registry's own.

Every name comes with its first use: a server that has no images need not hold all of this.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from iceshelves.images.registry.collecting import GcPlan, Retention, Waste, Withdrawal, collect, plan_gc
    from iceshelves.images.registry.deltas import DeltaReport, make_deltas
    from iceshelves.images.registry.findings import Finding, Verification
    from iceshelves.images.registry.layout import Layout
    from iceshelves.images.registry.model import (
        STABLE,
        Entry,
        Group,
        Moved,
        Outcome,
        Publication,
        Published,
        StoredFile,
        Wanted,
    )
    from iceshelves.images.registry.registry import Registry
    from iceshelves.images.registry.verifying import verify, verify_tree

_HOMES: Final = {
    "collecting": ("GcPlan", "Retention", "Waste", "Withdrawal", "collect", "plan_gc"),
    "deltas": ("DeltaReport", "make_deltas"),
    "findings": ("Finding", "Verification"),
    "layout": ("Layout",),
    "model": (
        "STABLE",
        "Entry",
        "Group",
        "Moved",
        "Outcome",
        "Publication",
        "Published",
        "StoredFile",
        "Wanted",
    ),
    "registry": ("Registry",),
    "verifying": ("verify", "verify_tree"),
}
_HOME_OF: Final = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "STABLE",
    "DeltaReport",
    "Entry",
    "Finding",
    "GcPlan",
    "Group",
    "Layout",
    "Moved",
    "Outcome",
    "Publication",
    "Published",
    "Registry",
    "Retention",
    "StoredFile",
    "Verification",
    "Wanted",
    "Waste",
    "Withdrawal",
    "collect",
    "make_deltas",
    "plan_gc",
    "verify",
    "verify_tree",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value
