"""``cluster members``, ``evacuate`` and ``restore``: the machines that a cluster is made of."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Final

import click

from iceshelves.cli.app import App, pass_app
from iceshelves.cli.client import segment
from iceshelves.cli.commands.deployments import confirm_by_name
from iceshelves.cli.completion import complete_cluster, complete_member
from iceshelves.cli.output import Column, Output, output_options, pick
from iceshelves.core.units import format_size

#: seconds; the server itself answers after ten minutes at the latest
_PATIENCE: Final = 630.0


def _used(entry: Mapping[str, Any], what: str) -> str:
    used, total = pick(entry, f"capacity.{what}_used"), pick(entry, f"capacity.{what}")
    return f"{format_size(used)} of {format_size(total)}" if isinstance(total, int) else ""


_COLUMNS: Final = (
    Column("NAME", "name"),
    Column("STATUS", "status"),
    Column("INSTANCES", "capacity.instances"),
    Column("CPUS", "capacity.cpus"),
    Column("MEMORY USED", lambda entry: _used(entry, "memory")),
    Column("STORAGE USED", lambda entry: _used(entry, "storage")),
    Column("ROLES", "roles"),
    Column("MESSAGE", "message"),
)


@click.command()
@click.argument("name", shell_complete=complete_cluster)
@output_options
@pass_app
def members(app: App, name: str, output: Output) -> None:
    """List a cluster's members: how they are, and what room each has."""
    entries = list(app.client.items(f"/api/clusters/{segment(name)}/members", "members"))
    output.many(entries, _COLUMNS, f"{name} has no members.")


@click.command()
@click.argument("name", shell_complete=complete_cluster)
@click.argument("member", shell_complete=complete_member)
@click.option("-y", "--yes", is_flag=True, help="Do not ask; needed where there is no terminal.")
@output_options
@pass_app
def evacuate(app: App, name: str, member: str, yes: bool, output: Output) -> None:
    """Move the instances of a member away, and place none there.

    What cannot be moved is stopped.  It goes on when you do not wait for its end; 'cluster members' shows
    how it went.
    """
    if not yes:
        confirm_by_name(member, f"This moves or stops every instance on the member {member} of {name}.")
    changed = _change(app, name, member, "evacuate", f"Evacuating {member} …")
    output.one(changed, lambda: f"{member} is evacuated.  Back into use: {_command('restore', name, member)}")


@click.command()
@click.argument("name", shell_complete=complete_cluster)
@click.argument("member", shell_complete=complete_member)
@output_options
@pass_app
def restore(app: App, name: str, member: str, output: Output) -> None:
    """Take an evacuated member into use again, and bring its instances back."""
    changed = _change(app, name, member, "restore", f"Restoring {member} …")
    output.one(changed, lambda: f"{member} is in use again.")


def _change(app: App, name: str, member: str, action: str, words: str) -> dict[str, Any]:
    app.deadline = _PATIENCE
    if sys.stderr.isatty():
        click.echo(words, err=True)
    return app.client.post(f"/api/clusters/{segment(name)}/members/{segment(member)}/{action}")


def _command(action: str, name: str, member: str) -> str:
    return f"iceshelves cluster {action} {name} {member}"
