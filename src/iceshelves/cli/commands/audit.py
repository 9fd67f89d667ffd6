"""``audit``: who did what, and what was refused."""

from __future__ import annotations

from typing import Final

import click

from iceshelves.cli.app import App, pass_app
from iceshelves.cli.listing import told_if_cut
from iceshelves.cli.output import Column, Output, output_options

_COLUMNS: Final = (
    Column("TIME", "timestamp"),
    Column("ACTOR", "actor"),
    Column("ACTION", "action"),
    Column("OBJECT", "object"),
    Column("OUTCOME", "outcome"),
)


@click.group()
def audit() -> None:
    """List who did what, and what was refused."""


@audit.command("list")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    metavar="N",
    default=20,
    show_default=True,
    help="At most; 0 is all.",
)
@output_options
@pass_app
def list_audit(app: App, limit: int, output: Output) -> None:
    """List what was done and what was refused, the newest first."""
    entries = list(app.client.items("/api/audit", "audit", limit=limit))
    output.many(entries, _COLUMNS, "Nothing was done yet.")
    told_if_cut(entries, limit)
