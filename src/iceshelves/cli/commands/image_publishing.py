"""``image publish``, ``promote``, ``rollback`` and ``restore``: what channels show."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

import click

from iceshelves.cli.completion import complete_image
from iceshelves.cli.output import Column, Output, facts, output_options
from iceshelves.cli.shelf import Group, NewImage, Promotion, Shelf, shelf_option
from iceshelves.cli.text import printable
from iceshelves.core.units import format_size

_P = ParamSpec("_P")
_R = TypeVar("_R")
_FILE: Final = click.Path(path_type=Path)
_PROMOTED: Final = (
    Column("APPLIANCE", "image.appliance"),
    Column("ARCH", "image.architecture"),
    Column("VERSION", "image.version"),
    Column("SERIAL", "image.serial"),
    Column("CHANNEL", "channel"),
    Column("OUTCOME", "outcome"),
)
_OUTCOMES: Final = {
    "published": "is published in {channel}",
    "promoted": "was known, and is now shown in {channel} too",
    "relabelled": "is what {channel} shows; it has new aliases",
    "unchanged": "is what {channel} shows already; nothing was written",
}


@click.command()
@click.argument("metadata", type=_FILE)
@click.argument("rootfs", type=_FILE, required=False)
@click.option("--disk", type=_FILE, metavar="FILE", help="The qcow2 of a virtual machine.")
@click.option(
    "--channel", metavar="NAME", default="stable", show_default=True, help="The channel that is to show it."
)
@click.option(
    "--alias",
    "aliases",
    metavar="ALIAS",
    multiple=True,
    help="A further alias, such as nginx/lts; may be repeated.  NAME and NAME/VERSION it has anyway.",
)
@shelf_option
@output_options
def publish(
    shelf: Shelf,
    metadata: Path,
    rootfs: Path | None,
    disk: Path | None,
    channel: str,
    aliases: tuple[str, ...],
    output: Output,
) -> None:
    """Publish an image that was built elsewhere.

    METADATA is its metadata tarball (.tar.xz), ROOTFS its squashfs.  Name, version, architecture and serial
    are those of the metadata's properties.  If it is interrupted, run it again: it goes on where it stopped.
    """
    if rootfs is None and disk is None:
        raise click.UsageError("Give ROOTFS, --disk, or both.")
    found = shelf.publish(NewImage(metadata, rootfs, disk, channel, aliases))
    output.one(found, lambda: _good_news(found, shelf))


@click.command()
@click.argument("name", shell_complete=complete_image)
@click.option(
    "--from", "source", metavar="CHANNEL", required=True, help="The channel that shows it, such as candidate."
)
@click.option(
    "--to", "target", metavar="CHANNEL", default="stable", show_default=True, help="The channel that is to."
)
@click.option("--arch", metavar="NAME", help="Only for this architecture.  [default: for each there is]")
@shelf_option
@output_options
def promote(shelf: Shelf, name: str, source: str, target: str, arch: str | None, output: Output) -> None:
    """Show in one channel the newest image that another shows.

    No file is copied.
    """
    output.many(shelf.promote(Promotion(name, source, target, arch)), _PROMOTED, "Nothing was promoted.")


def _group_options(command: Callable[_P, _R]) -> Callable[..., _R]:
    """What ``rollback`` and ``restore`` have in common; the command gets it as ``group``."""

    @click.argument("name", shell_complete=complete_image)
    @click.option("--channel", metavar="NAME", default="stable", show_default=True, help="In this channel.")
    @click.option("--arch", metavar="NAME", default="amd64", show_default=True, help="For this architecture.")
    @functools.wraps(command)
    def wrapped(*args: Any, name: str, channel: str, arch: str, **kwargs: Any) -> _R:
        return command(*args, group=Group(name, channel, arch), **kwargs)  # type: ignore[arg-type]

    return wrapped


@click.command()
@_group_options
@shelf_option
@output_options
def rollback(shelf: Shelf, group: Group, output: Output) -> None:
    """Withdraw the newest image; its aliases go to the one before.

    Clients see it as soon as they fetch the catalogue again: command lines keep theirs for five minutes,
    daemons for an hour.
    """
    moved = shelf.roll_back(group)
    again = f"iceshelves image restore {_again(group)}{shelf.option}"
    output.one(moved, lambda: _moved(moved, group, f"{again}   takes it back"))


@click.command()
@_group_options
@shelf_option
@output_options
def restore(shelf: Shelf, group: Group, output: Output) -> None:
    """Take a roll-back back."""
    moved = shelf.restore(group)
    output.one(moved, lambda: _moved(moved, group, ""))


def _good_news(found: Mapping[str, Any], shelf: Shelf) -> str:
    image = found["image"]
    became = _OUTCOMES[found["outcome"]].format(channel=found["channel"])
    return "\n".join(
        [
            click.style(printable(f"{_named(image)} {became}."), fg="green", bold=True),
            facts(
                [
                    ("Fingerprint", [f"{value} ({kind})" for kind, value in image["fingerprints"].items()]),
                    ("Size", format_size(int(image["size"]))),
                    ("Aliases", image["aliases"]),
                    ("Channels", image["channels"]),
                    ("Next", shelf.next_step),
                ]
            ),
        ]
    )


def _moved(moved: Mapping[str, Any], group: Group, next_step: str) -> str:
    return facts(
        [
            ("Channel", group.channel),
            ("Before", _named(moved["before"])),
            ("Now", _named(moved["now"])),
            ("Next", next_step),
        ]
    )


def _named(image: Mapping[str, Any]) -> str:
    return f"{image['appliance']} {image['version']} for {image['architecture']} of {image['serial']}"


def _again(group: Group) -> str:
    """The arguments that mean the same group."""
    given = [group.appliance]
    if group.channel != "stable":
        given.append(f"--channel {group.channel}")
    if group.architecture != "amd64":
        given.append(f"--arch {group.architecture}")
    return " ".join(given)
