"""``operation``: any asynchronous work, looked at by its id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click

from iceshelves.cli.app import App, pass_app
from iceshelves.cli.client import segment
from iceshelves.cli.commands.deployments import operation_text
from iceshelves.cli.completion import complete_operation
from iceshelves.cli.listing import limit_option, told_if_cut
from iceshelves.cli.output import Column, Output, facts, output_options
from iceshelves.cli.steps import age, duration
from iceshelves.cli.watch import follow

_STATES: Final = ("pending", "running", "succeeded", "failed", "cancelled", "timeout")
_COLUMNS: Final = (
    Column("ID", "id"),
    Column("KIND", "kind"),
    Column("ABOUT", lambda entry: _subject(entry)),
    Column("STATUS", "status"),
    Column("TIME", duration),
    Column("AGE", lambda entry: age(entry.get("created_on"))),
    Column("BY", "created_by"),
)


@click.group()
def operation() -> None:
    """List, show and watch operations."""


@operation.command("list")
@click.option("--status", type=click.Choice(_STATES), help="Only those in this state.")
@limit_option(20)
@output_options
@pass_app
def list_operations(app: App, status: str | None, limit: int, output: Output) -> None:
    """List operations, the newest first."""
    entries = list(app.client.items("/api/operations", "operations", limit=limit, status=status))
    output.many(entries, _COLUMNS, "No operations.")
    told_if_cut(entries, limit)


@operation.command("show")
@click.argument("operation_id", metavar="ID", shell_complete=complete_operation)
@output_options
@pass_app
def show_operation(app: App, operation_id: str, output: Output) -> None:
    """Show an operation and its steps."""
    found = app.client.get(f"/api/operations/{segment(operation_id)}")
    error = found.get("error") or {}
    problem = facts([("Error", error.get("message")), ("Hint", error.get("hint"))])
    output.one(found, lambda: "\n".join(part for part in (operation_text(found), problem) if part))


@operation.command()
@click.argument("operation_id", metavar="ID", shell_complete=complete_operation)
@click.option("-v", "--verbose", is_flag=True, help="Show all log lines, the guest's included.")
@pass_app
def watch(app: App, operation_id: str, verbose: bool) -> int:
    """Wait for an operation to end: status 0 if it succeeded, 1 if it failed, 130 if it was cancelled.

    Ctrl-C cancels it; Ctrl-C again does not wait for the end of that.
    """
    return follow(app, operation_id, verbose=verbose)


def _subject(entry: Mapping[str, Any]) -> str:
    """The instance that it is about, or the appliance."""
    cluster = entry.get("cluster")
    return f"{cluster['name']}:{entry.get('instance_name')}" if cluster else str(entry.get("appliance") or "")
