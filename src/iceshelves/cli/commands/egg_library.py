"""``egg list``, ``import`` and ``delete``: the server's library."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from iceshelves.cli.app import App, pass_app
from iceshelves.cli.completion import complete_egg
from iceshelves.cli.eggs import import_egg, in_library
from iceshelves.cli.listing import told_if_cut
from iceshelves.cli.output import Column, Output, output_options

_COLUMNS: Final = (
    Column("NAME", "name"),
    Column("VERSION", "version"),
    Column("CATEGORY", "category"),
    Column("TYPE", "egg_type"),
    Column("DESCRIPTION", "description"),
)


@click.command("list")
@click.option("--category", metavar="NAME", help="Only this category.")
@click.option("--search", metavar="TEXT", help="Only those with this in their name or description.")
@click.option("--tag", metavar="TAG", help="Only those with this tag.")
@click.option("--all-versions", is_flag=True, help="Every version, not the latest alone.")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    metavar="N",
    default=100,
    show_default=True,
    help="At most; 0 is all.",
)
@output_options
@pass_app
def list_eggs(
    app: App,
    category: str | None,
    search: str | None,
    tag: str | None,
    all_versions: bool,
    limit: int,
    output: Output,
) -> None:
    """List the eggs of the library."""
    query = {
        "category": category,
        "search": search,
        "tag": tag,
        "versions": "all" if all_versions else None,
    }
    entries = list(app.client.items("/api/eggs", "eggs", limit=limit, **query))
    output.many(entries, _COLUMNS, "No eggs.  Import one: iceshelves egg import DIRECTORY")
    told_if_cut(entries, limit)


@click.command("import")
@click.argument("paths", metavar="PATH...", type=click.Path(path_type=Path), nargs=-1, required=True)
@pass_app
def import_(app: App, paths: tuple[Path, ...]) -> None:
    """Add eggs from the disk to the library.

    Versions lie side by side, and each stays as it is.
    """
    for path in paths:
        click.echo(import_egg(app.client, path))


@click.command()
@click.argument("name", metavar="NAME@VERSION", shell_complete=complete_egg)
@pass_app
def delete(app: App, name: str) -> None:
    """Delete one version from the library.

    It is refused while a deployment uses it.
    """
    if "@" not in name:
        raise click.UsageError("Say which version: NAME@VERSION.")
    app.client.delete(in_library(name))
    click.echo(f"Deleted {name}.")
