"""``egg list``, ``import``, ``activate``, ``deactivate`` and ``delete``: the server's library."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from iceshelves.cli.app import App, pass_app
from iceshelves.cli.completion import complete_egg
from iceshelves.cli.eggs import import_egg, in_library, named
from iceshelves.cli.listing import limit_option, told_if_cut
from iceshelves.cli.output import Column, Output, output_options

_COLUMNS: Final = (
    Column("NAME", "name"),
    Column("VERSION", "version"),
    Column("CATEGORY", "category"),
    Column("TYPE", "egg_type"),
    Column("ACTIVE", "is_active"),
    Column("DESCRIPTION", "description"),
)


@click.command("list")
@click.option("--category", metavar="NAME", help="Only this category.")
@click.option("--search", metavar="TEXT", help="Only those with this in their name or description.")
@click.option("--tag", metavar="TAG", help="Only those with this tag.")
@click.option("--all-versions", is_flag=True, help="Every version, not the latest alone.")
@limit_option(100)
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
@click.argument("name", metavar="NAME[@VERSION]", shell_complete=complete_egg)
@pass_app
def activate(app: App, name: str) -> None:
    """Let an egg be deployed again."""
    _switch(app, name, {"is_active": True})
    click.echo(f"{name} can be deployed.")


@click.command()
@click.argument("name", metavar="NAME[@VERSION]", shell_complete=complete_egg)
@pass_app
def deactivate(app: App, name: str) -> None:
    """Keep an egg in the library, but let nobody deploy it.

    Instances that were made of it stay as they are.
    """
    _switch(app, name, {"is_active": False})
    click.echo(f"{name} can be deployed no more, until 'iceshelves egg activate {name}'.")


def _switch(app: App, name: str, body: dict[str, Any]) -> None:
    with named(app.client, name):
        app.client.patch(in_library(name), body)


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
