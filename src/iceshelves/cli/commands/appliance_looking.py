"""``appliance list``, ``show`` and ``test``: what the server brings along, and what becomes of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click

from iceshelves.cli.app import App, pass_app
from iceshelves.cli.builds import Order, Waiting, Wishes, carry_out, kept_lock
from iceshelves.cli.client import segment
from iceshelves.cli.completion import complete_appliance, complete_cluster
from iceshelves.cli.output import Column, Output, facts, output_options
from iceshelves.cli.recipes import recipe_of
from iceshelves.cli.text import printable
from iceshelves.cli.values import Duration

_COLUMNS: Final = (
    Column("NAME", "name"),
    Column("VERSION", lambda entry: _version(entry)),
    Column("BASE", "base"),
    Column("PORTS", lambda entry: [str(port["number"]) for port in entry["ports"]]),
    Column("ARCH", "architectures"),
    Column("DESCRIPTION", "description"),
)


@click.command("list")
@output_options
@pass_app
def list_appliances(app: App, output: Output) -> None:
    """List the built-in appliances."""
    entries = list(app.client.items("/api/appliances", "appliances"))
    output.many(entries, _COLUMNS, "No built-in appliances.  Write one: iceshelves appliance new NAME")


@click.command()
@click.argument("name", shell_complete=complete_appliance)
@click.option("--recipe", is_flag=True, help="Print its appliance.yaml instead.")
@output_options
@pass_app
def show(app: App, name: str, recipe: bool, output: Output) -> None:
    """Show a built-in appliance, and its README."""
    found = app.client.get(f"/api/appliances/{segment(name)}")
    output.one(found, lambda: printable(str(found["recipe"])).rstrip() if recipe else _text(found))


@click.command()
@click.argument("source", metavar="FOLDER|NAME", shell_complete=complete_appliance)
@click.option(
    "--on",
    "cluster",
    metavar="CLUSTER",
    required=True,
    shell_complete=complete_cluster,
    help="Where to start it.",
)
@click.option("--arch", metavar="NAME", help="For this architecture.  [default: the recipe's first]")
@click.option("--timeout", type=Duration(), help="How long it may take, such as 10m.  [default: 1h]")
@click.option("-v", "--verbose", is_flag=True, help="Show all log lines.")
@output_options
@pass_app
def test(
    app: App,
    source: str,
    cluster: str,
    arch: str | None,
    timeout: float | None,
    verbose: bool,
    output: Output,
) -> int:
    """Build an appliance, start it, and ask it whether it is healthy.

    Nothing is published, and the instance is removed.  Packing is fast rather than small.
    """
    recipe = recipe_of(source)
    wishes = Wishes(architecture=arch, types=("container",), fast=True, gate=cluster, timeout=timeout)
    order = Order(recipe, wishes, kept_lock(recipe, arch))
    status, _ = carry_out(app, order, Waiting(True, verbose), output)
    return status


def _version(entry: Mapping[str, Any]) -> str:
    """Its version, or the package whose version it has."""
    return str(entry["version"] or f"that of {entry['version_from']}")


def _text(found: Mapping[str, Any]) -> str:
    ports = [
        " ".join(filter(None, (f"{port['number']}/{port['protocol']}", port["description"])))
        for port in found["ports"]
    ]
    shown = facts(
        [
            ("Name", found["name"]),
            ("Title", found["title"]),
            ("Version", _version(found)),
            ("Description", found["description"]),
            ("Base", found["base"]),
            ("Architectures", found["architectures"]),
            ("Types", found["types"]),
            ("Ports", ports),
            ("Packages", found["packages"]),
            ("Tags", found["tags"]),
            ("Next", f"iceshelves image build {found['name']}"),
        ]
    )
    readme = printable(str(found["readme"])).rstrip()
    return f"{shown}\n\n{readme}" if readme else shown
