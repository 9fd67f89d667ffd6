"""Recipes of appliances: read, checked, imported, made.  Pure format code; it builds nothing.

Every name comes with its first use: the command line starts often and seldom needs them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from iceshelves.appliances.guest import Guest, guest_files
    from iceshelves.appliances.importing import import_original
    from iceshelves.appliances.library import builtin, library_path, new, templates
    from iceshelves.appliances.linting import lint
    from iceshelves.appliances.model import Recipe
    from iceshelves.appliances.reading import load
    from iceshelves.appliances.versions import upstream_version

_HOMES: Final = {
    "guest": ("Guest", "guest_files"),
    "importing": ("import_original",),
    "library": ("builtin", "library_path", "new", "templates"),
    "linting": ("lint",),
    "model": ("Recipe",),
    "reading": ("load",),
    "versions": ("upstream_version",),
}
_HOME_OF: Final = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Guest",
    "Recipe",
    "builtin",
    "guest_files",
    "import_original",
    "library_path",
    "lint",
    "load",
    "new",
    "templates",
    "upstream_version",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value
