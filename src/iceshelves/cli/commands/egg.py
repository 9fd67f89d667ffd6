"""``egg``: the commands for authors work without a server; the others look into its library."""

from __future__ import annotations

from typing import Final

import click

from iceshelves.cli.lazy import Lazy, LazyGroup

_HERE: Final = "iceshelves.cli.commands"

SECTIONS: Final[dict[str, dict[str, Lazy]]] = {
    "Writing": {
        "new": Lazy(f"{_HERE}.egg_writing:new", "Make a working egg to start from."),
        "templates": Lazy(f"{_HERE}.egg_writing:templates", "List what a new egg can start from."),
        "lint": Lazy(f"{_HERE}.egg_writing:lint", "Check eggs and say what is wrong where."),
        "pack": Lazy(f"{_HERE}.egg_writing:pack", "Make one file of an egg."),
        "unpack": Lazy(
            f"{_HERE}.egg_writing:unpack",
            "Write an egg, from a file or from the library, into a new directory.",
        ),
    },
    "Looking": {
        "show": Lazy(f"{_HERE}.egg_looking:show", "Show an egg, its parameters, and its README."),
        "render": Lazy(
            f"{_HERE}.egg_looking:render", "Print the user-data that an instance would get, byte for byte."
        ),
        "diff": Lazy(f"{_HERE}.egg_looking:diff", "Print how two eggs differ, file by file."),
    },
    "Library": {
        "list": Lazy(f"{_HERE}.egg_library:list_eggs", "List the eggs of the library."),
        "import": Lazy(f"{_HERE}.egg_library:import_", "Add eggs from the disk to the library."),
        "activate": Lazy(f"{_HERE}.egg_library:activate", "Let an egg be deployed again."),
        "deactivate": Lazy(
            f"{_HERE}.egg_library:deactivate", "Keep an egg in the library, but let nobody deploy it."
        ),
        "delete": Lazy(f"{_HERE}.egg_library:delete", "Delete one version from the library."),
    },
}


@click.group(cls=LazyGroup, sections=SECTIONS)
def egg() -> None:
    """Write, check, pack and import eggs.

    EGG is a name of the library (NAME or NAME@VERSION), or a directory or .egg file, with a '/' or '.egg'
    in it.
    """
