"""Eggs: read, checked, rendered, written.  Pure format code; it knows neither servers nor hypervisors.

Every name comes with its first use: the command line starts often and seldom needs them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from iceshelves.eggs.archive import pack, unpack
    from iceshelves.eggs.build import egg_from_files
    from iceshelves.eggs.cloudconfig import merge_cloud_config
    from iceshelves.eggs.comparing import diff
    from iceshelves.eggs.directory import load, read_directory, write_directory
    from iceshelves.eggs.library import builtin_eggs, library_path, new_egg, templates
    from iceshelves.eggs.linting import lint, lint_files
    from iceshelves.eggs.model import Check, Egg, Metadata, Parameter, Profile, Volume
    from iceshelves.eggs.parameters import Parameters, resolve_parameters
    from iceshelves.eggs.quotes import repair_quotes
    from iceshelves.eggs.rendering import Rendered, render
    from iceshelves.eggs.semver import SemVer

_HOMES: Final = {
    "archive": ("pack", "unpack"),
    "build": ("egg_from_files",),
    "cloudconfig": ("merge_cloud_config",),
    "comparing": ("diff",),
    "directory": ("load", "read_directory", "write_directory"),
    "library": ("builtin_eggs", "library_path", "new_egg", "templates"),
    "linting": ("lint", "lint_files"),
    "model": ("Check", "Egg", "Metadata", "Parameter", "Profile", "Volume"),
    "parameters": ("Parameters", "resolve_parameters"),
    "quotes": ("repair_quotes",),
    "rendering": ("Rendered", "render"),
    "semver": ("SemVer",),
}
_HOME_OF: Final = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Check",
    "Egg",
    "Metadata",
    "Parameter",
    "Parameters",
    "Profile",
    "Rendered",
    "SemVer",
    "Volume",
    "builtin_eggs",
    "diff",
    "egg_from_files",
    "library_path",
    "lint",
    "lint_files",
    "load",
    "merge_cloud_config",
    "new_egg",
    "pack",
    "read_directory",
    "render",
    "repair_quotes",
    "resolve_parameters",
    "templates",
    "unpack",
    "write_directory",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value
