"""The tenants' registries: one folder each, made when it is first needed."""

from __future__ import annotations

import threading
from pathlib import Path

from iceshelves.core.errors import Conflict
from iceshelves.images import registry


class Registries:
    """May be used from several threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[int, registry.Registry] = {}
        self._lock = threading.Lock()

    def of(self, tenant_id: int) -> registry.Registry:
        """The registry of a tenant.  Raises :class:`Failed` ``registry_unusable``."""
        with self._lock:
            if tenant_id not in self._open:
                self._open[tenant_id] = self._opened(self._folder / str(tenant_id))
            return self._open[tenant_id]

    def tree_of(self, tenant_id: int) -> Path | None:
        """The folder that is served, if the tenant has published anything."""
        tree = self._folder / str(tenant_id) / "tree"
        return tree if tree.is_dir() else None

    def close(self) -> None:
        """Let go of all of them."""
        with self._lock:
            for opened in self._open.values():
                opened.close()
            self._open.clear()

    def _opened(self, root: Path) -> registry.Registry:
        if not (root / "registry.db").exists():
            try:
                return registry.Registry.create(root)
            except Conflict:
                pass  # another server on this folder was faster
        return registry.Registry.open(root)
