"""``list``, ``show``, ``revisions``, ``cancel`` and ``delete``."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any, Final

import click

from iceshelves.cli.address import deployment_id, find_deployment, place_of
from iceshelves.cli.app import App, pass_app
from iceshelves.cli.completion import complete_cluster, complete_deployment
from iceshelves.cli.listing import limit_option, told_if_cut
from iceshelves.cli.output import Column, Output, facts, output_options, table
from iceshelves.cli.steps import MARKS, age, duration, title
from iceshelves.cli.watch import follow
from iceshelves.core.errors import InvalidInput

_STATES: Final = ("pending", "in_progress", "completed", "failed", "cancelled", "timeout", "deleted")
_COLUMNS: Final = (
    Column("ID", "id"),
    Column("NAME", lambda entry: f"{entry['cluster']['name']}:{entry['instance_name']}"),
    Column("EGG", lambda entry: f"{entry['egg']['name']} {entry['egg'].get('version') or ''}".strip()),
    Column("REV", "revision"),
    Column("STATUS", "status"),
    Column("AGE", lambda entry: age(entry.get("created_on"))),
    Column("BY", "deployed_by"),
)
_FINGERPRINT: Final = re.compile("[0-9a-f]{64}")
_REVISION_COLUMNS: Final = (
    Column("REV", "number"),
    Column("EGG", lambda entry: f"{entry['egg']['name']} {entry['egg'].get('version') or ''}".strip()),
    Column("STATUS", "status"),
    Column("IMAGE", lambda entry: short_fingerprint(str(entry.get("image") or ""))),
    Column("AGE", lambda entry: age(entry.get("created_on"))),
    Column("BY", "created_by"),
)


@click.command("list")
@click.option(
    "--cluster", metavar="NAME", shell_complete=complete_cluster, help="Only those on this cluster."
)
@click.option("--status", type=click.Choice(_STATES), help="Only those in this state.")
@click.option("--search", metavar="TEXT", help="Only those with this in their name.")
@click.option("--deleted", is_flag=True, help="Those that were deleted, too.")
@limit_option(100)
@output_options
@pass_app
def list_(
    app: App,
    cluster: str | None,
    status: str | None,
    search: str | None,
    deleted: bool,
    limit: int,
    output: Output,
) -> None:
    """List deployments."""
    query = {"cluster": cluster, "status": status, "search": search, "deleted": "true" if deleted else None}
    entries = list(app.client.items("/api/deployments", "deployments", limit=limit, **query))
    narrowed = cluster or status or search
    empty = (
        "No such deployments."
        if narrowed
        else "No deployments.  Try: iceshelves deploy hello-web CLUSTER:web"
    )
    output.many(entries, _COLUMNS, empty)
    told_if_cut(entries, limit)


@click.command()
@click.argument("address", metavar="CLUSTER:NAME", shell_complete=complete_deployment)
@output_options
@pass_app
def show(app: App, address: str, output: Output) -> None:
    """Show a deployment: its state, addresses and steps."""
    deployment = find_deployment(app.client, address)
    output.one(deployment, lambda: _text(deployment))


@click.command()
@click.argument("address", metavar="CLUSTER:NAME", shell_complete=complete_deployment)
@output_options
@pass_app
def revisions(app: App, address: str, output: Output) -> None:
    """List what a deployment was and is, the newest first.

    'iceshelves rollback --revision N' goes back to one of them.
    """
    number = deployment_id(app.client, address)
    entries = list(app.client.items(f"/api/deployments/{number}/revisions", "revisions"))
    output.many(entries, _REVISION_COLUMNS, "No revisions.")


@click.command()
@click.argument("address", metavar="CLUSTER:NAME", shell_complete=complete_deployment)
@click.option("--no-wait", is_flag=True, help="Return as soon as the server has accepted it.")
@pass_app
def cancel(app: App, address: str, no_wait: bool) -> None:
    """Cancel what is being done to a deployment.

    What was made is taken back.  The status is 0 when the work was cancelled, and 1 when it ended first.
    """
    deployment = find_deployment(app.client, address)
    accepted = app.client.post(f"/api/deployments/{deployment['id']}/cancel")
    place = place_of(deployment)
    operation_id = accepted.get("operation_id")
    if no_wait or not operation_id:
        click.echo(f"{place}: cancelling.")
        return
    follow_to_cancelled(app, str(operation_id))
    click.echo(f"{place}: cancelled.")


def follow_to_cancelled(app: App, operation_id: str) -> None:
    """Wait for an operation that was told to stop.  Raises :class:`Conflict` if it finished nevertheless."""
    from iceshelves.cli.watch import view_for_terminal, watch
    from iceshelves.core.errors import Conflict

    view = view_for_terminal(verbose=False)
    try:
        outcome = watch(app.client, operation_id, view)
    finally:
        view.close()
    if outcome.operation is None:
        raise click.Abort
    status = outcome.operation["status"]
    if status != "cancelled":
        raise Conflict(f"It was too late: the operation ended as {status}.", code="operation_ended")


@click.command()
@click.argument("address", metavar="CLUSTER:NAME", shell_complete=complete_deployment)
@click.option("-y", "--yes", is_flag=True, help="Do not ask; needed where there is no terminal.")
@click.option("--no-wait", is_flag=True, help="Return as soon as the server has accepted it.")
@pass_app
def delete(app: App, address: str, yes: bool, no_wait: bool) -> int:
    """Delete an instance and what was made for it.

    Its volumes are deleted, too.  On a terminal it asks for the instance's name first.
    """
    deployment = find_deployment(app.client, address)
    place = place_of(deployment)
    if not yes:
        confirm_by_name(place.name, f"This deletes {place} and its volumes.")
    accepted = app.client.delete(f"/api/deployments/{deployment['id']}")
    operation_id = str(accepted["operation_id"])
    if no_wait:
        click.echo(f"{place}: deleting.  Watch it with: iceshelves operation watch {operation_id}")
        return 0
    status = follow(app, operation_id)
    if status == 0:
        click.echo(f"{place} is deleted.")
    return status


def short_fingerprint(image: str) -> str:
    """An image as people tell it from others: the first 12 digits of a fingerprint, or its name."""
    return image[:12] if _FINGERPRINT.fullmatch(image) else image


def confirm_by_name(name: str, consequence: str) -> None:
    """Go on only if the user types ``name``.  Raises :class:`InvalidInput` where nobody can."""
    if not sys.stdin.isatty():
        raise InvalidInput(
            f"{consequence}  Nobody is here to confirm it.",
            code="confirmation_needed",
            hint="Add --yes if you mean it.",
        )
    click.echo(consequence, err=True)
    if click.prompt(f"Type {name} to go on", err=True, default="", show_default=False) != name:
        raise InvalidInput("That is another name; nothing was deleted.", code="not_confirmed")


def _text(deployment: Mapping[str, Any]) -> str:
    info = deployment.get("instance_info") or {}
    egg, error = deployment.get("egg") or {}, deployment.get("error") or {}
    parts = [
        facts(
            [
                ("Name", str(place_of(dict(deployment)))),
                ("Id", deployment["id"]),
                ("Status", deployment["status"]),
                ("Egg", f"{egg.get('name')} {egg.get('version') or ''}".strip()),
                ("Revision", deployment.get("revision")),
                ("Address", [*(info.get("ipv4") or []), *(info.get("ipv6") or [])]),
                ("Image", info.get("image")),
                ("Member", info.get("member")),
                ("Created", f"{deployment.get('created_on')} by {deployment.get('deployed_by')}"),
                ("Error", error.get("message")),
                ("Hint", error.get("hint")),
                (
                    "Guest said",
                    "\n".join(str(line) for line in (error.get("details") or {}).get("guest") or []),
                ),
            ]
        )
    ]
    operation = deployment.get("operation") or {}
    if operation.get("steps"):
        parts += ["", operation_text(operation)]
    return "\n".join(parts)


def operation_text(operation: Mapping[str, Any]) -> str:
    """An operation and its steps, for people."""
    heading = f"Operation {operation['id']}: {operation['kind']}, {operation['status']}"
    taken = duration(operation)
    rows = [
        [
            MARKS.get(step["status"], " "),
            title(step),
            str(step["status"]),
            duration(step),
            str(step.get("message") or ""),
        ]
        for step in operation.get("steps", [])
    ]
    return "\n".join(
        [heading + (f" ({taken})" if taken else ""), table(["", "STEP", "STATUS", "TIME", "MESSAGE"], rows)]
    )
