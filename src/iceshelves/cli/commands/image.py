"""``image``: building and publishing, on the server or in a registry that is only a folder."""

from __future__ import annotations

from typing import Final

import click

from iceshelves.cli.lazy import Lazy, LazyGroup

_HERE: Final = "iceshelves.cli.commands"

SECTIONS: Final[dict[str, dict[str, Lazy]]] = {
    "Building": {
        "build": Lazy(f"{_HERE}.image_building:build", "Build the image of an appliance, and publish it."),
        "builds": Lazy(f"{_HERE}.image_building:builds", "List builds, the newest first."),
        "show-build": Lazy(f"{_HERE}.image_building:show_build", "Show a build and what it made."),
        "logs": Lazy(f"{_HERE}.image_building:logs", "Print the log of a build."),
    },
    "Publishing": {
        "publish": Lazy(f"{_HERE}.image_publishing:publish", "Publish an image that was built elsewhere."),
        "promote": Lazy(
            f"{_HERE}.image_publishing:promote", "Show in one channel the newest image that another shows."
        ),
        "rollback": Lazy(
            f"{_HERE}.image_publishing:rollback",
            "Withdraw the newest image; its aliases go to the one before.",
        ),
        "restore": Lazy(f"{_HERE}.image_publishing:restore", "Take a roll-back back."),
    },
    "Registry": {
        "list": Lazy(f"{_HERE}.image_registry:list_images", "List published images, the newest first."),
        "verify": Lazy(f"{_HERE}.image_registry:verify", "Check everything that is published."),
        "gc": Lazy(f"{_HERE}.image_registry:gc", "Remove what no channel has needed for a while."),
        "remote-line": Lazy(
            f"{_HERE}.image_registry:remote_line", "Print the lines that add the registry to a stock client."
        ),
    },
    "Without a server": {
        "push": Lazy(f"{_HERE}.image_folder:push", "Copy a registry to where a web server has its files."),
        "serve": Lazy(f"{_HERE}.image_folder:serve", "Serve a registry that is a folder."),
    },
}


@click.group(cls=LazyGroup, sections=SECTIONS)
def image() -> None:
    """Build, publish, promote and look after images.

    They are in the server's registry, or with --tree FOLDER in one that is a folder and needs no server.
    """
