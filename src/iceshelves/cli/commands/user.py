"""``user``: who may use the server, and their tokens."""

from __future__ import annotations

from typing import Any, Final

import click

from iceshelves.cli.app import App, pass_app
from iceshelves.cli.commands.deployments import confirm_by_name
from iceshelves.cli.completion import complete_user
from iceshelves.cli.output import Column, Output, output_options
from iceshelves.core.errors import NotFound

_COLUMNS: Final = (
    Column("ID", "id"),
    Column("NAME", "name"),
    Column("ROLE", "role"),
    Column("ACTIVE", "is_active"),
    Column("CREATED", "created_on"),
)


@click.group()
def user() -> None:
    """Add, list and remove users, and renew their tokens."""


@user.command()
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(["admin", "operator", "viewer"]),
    default="viewer",
    show_default=True,
    help="admin does everything, operator deploys, viewer looks.",
)
@pass_app
def add(app: App, name: str, role: str) -> None:
    """Add a user.  The token is printed once, alone on standard output."""
    answer = app.client.post("/api/users", {"name": name, "role": role})
    click.echo(f"Added {name} ({role}).  This token is shown only now:", err=True)
    click.echo(answer["token"])


@user.command("list")
@output_options
@pass_app
def list_users(app: App, output: Output) -> None:
    """List users."""
    output.many(list(app.client.items("/api/users", "users")), _COLUMNS, "No users.")


@user.command()
@click.argument("name", shell_complete=complete_user)
@pass_app
def token(app: App, name: str) -> None:
    """Give a user a new token; the former ones end."""
    answer = app.client.post(f"/api/users/{_find(app, name)['id']}/token")
    click.echo(f"The former tokens of {name} have ended.  This one is shown only now:", err=True)
    click.echo(answer["token"])


@user.command()
@click.argument("name", shell_complete=complete_user)
@click.option("-y", "--yes", is_flag=True, help="Do not ask; needed where there is no terminal.")
@pass_app
def remove(app: App, name: str, yes: bool) -> None:
    """Deactivate a user; its tokens end.  What it did stays on record."""
    found = _find(app, name)
    if not yes:
        confirm_by_name(name, f"This ends all tokens of {name}.")
    app.client.delete(f"/api/users/{found['id']}")
    click.echo(f"Removed {name}.")


def _find(app: App, name: str) -> dict[str, Any]:
    for entry in app.client.items("/api/users", "users"):
        if entry["name"] == name:
            return entry
    raise NotFound(f"No user is called {name!r}.", code="user_not_found", hint="iceshelves user list")
