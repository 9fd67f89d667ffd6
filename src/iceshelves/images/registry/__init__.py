"""The image registry: a folder that Incus and LXD clients read as an image server, and its books.

``ROOT/tree`` is what is served, by any web server; the rest of ``ROOT`` is the registry's own.
"""

from __future__ import annotations

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
