"""``appliance``: the commands for authors work without a server; the others ask it."""

from __future__ import annotations

from typing import Final

import click

from iceshelves.cli.lazy import Lazy, LazyGroup

_HERE: Final = "iceshelves.cli.commands"

SECTIONS: Final[dict[str, dict[str, Lazy]]] = {
    "Writing": {
        "new": Lazy(f"{_HERE}.appliance_writing:new", "Make a working recipe to start from."),
        "lint": Lazy(f"{_HERE}.appliance_writing:lint", "Check recipes and say what is wrong where."),
        "import": Lazy(
            f"{_HERE}.appliance_writing:import_",
            "Make a recipe of the Incus Appliance Registry into one of ours.",
        ),
        "test": Lazy(
            f"{_HERE}.appliance_looking:test",
            "Build an appliance, start it, and ask it whether it is healthy.",
        ),
    },
    "Looking": {
        "list": Lazy(f"{_HERE}.appliance_looking:list_appliances", "List the built-in appliances."),
        "show": Lazy(f"{_HERE}.appliance_looking:show", "Show a built-in appliance, and its README."),
    },
}


@click.group(cls=LazyGroup, sections=SECTIONS)
def appliance() -> None:
    """Write, check, import and try out recipes of images.

    FOLDER has a file appliance.yaml in it.
    """
