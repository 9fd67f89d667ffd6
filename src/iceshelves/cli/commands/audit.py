"""``audit``: who did what, and what was refused."""

from __future__ import annotations

from typing import Final

import click

from iceshelves.cli.app import App, pass_app
from iceshelves.cli.listing import limit_option, told_if_cut
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
@limit_option(20)
@output_options
@pass_app
def list_audit(app: App, limit: int, output: Output) -> None:
    """List what was done and what was refused, the newest first."""
    entries = list(app.client.items("/api/audit", "audit", limit=limit))
    output.many(entries, _COLUMNS, "Nothing was done yet.")
    told_if_cut(entries, limit)
