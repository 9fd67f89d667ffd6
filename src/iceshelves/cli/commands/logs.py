"""``logs``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import click

from iceshelves.cli.address import deployment_id
from iceshelves.cli.app import App, pass_app
from iceshelves.cli.completion import complete_deployment
from iceshelves.cli.output import Column, Output, output_options
from iceshelves.cli.text import printable

LOG_COLUMNS: Final = (
    Column("ID", "id"),
    Column("TIMESTAMP", "timestamp"),
    Column("LEVEL", "level"),
    Column("SOURCE", "source"),
    Column("STEP", "step"),
    Column("MESSAGE", "message"),
)


@click.command()
@click.argument("address", metavar="CLUSTER:NAME", shell_complete=complete_deployment)
@click.option("-f", "--follow", "following", is_flag=True, help="Go on printing until Ctrl-C.")
@click.option("--guest", is_flag=True, help="Only what the guest itself wrote.")
@click.option("--level", type=click.Choice(["debug", "info", "warning", "error"]), help="Only this level.")
@click.option("--operation", "operation_id", metavar="ID", help="Only this operation's.")
@output_options
@pass_app
def logs(
    app: App,
    address: str,
    following: bool,
    guest: bool,
    level: str | None,
    operation_id: str | None,
    output: Output,
) -> None:
    """Print a deployment's log, the guest's own output included."""
    number = deployment_id(app.client, address)
    query: dict[str, Any] = {
        "source": "guest" if guest else None,
        "level": level.upper() if level else None,
        "operation_id": operation_id,
    }
    if not following:
        lines = list(app.client.items(f"/api/deployments/{number}/logs", "logs", **query))
        if output.is_for_people:
            for line in lines:
                print_line(line, guest)
            if not lines:
                click.echo("There is no such line in the log.", err=True)
        else:
            output.many(lines, LOG_COLUMNS, "")
        return
    if output.format not in ("table", "json"):
        raise click.UsageError(f"--follow does not go with --format {output.format}.")
    _follow(app, number, query, guest if output.is_for_people else None)


def _follow(app: App, number: int, query: Mapping[str, Any], guest_only: bool | None) -> None:
    """Print what is there, then whatever comes, until interrupted; ``None`` prints one JSON object a line."""
    from iceshelves.cli.events import Feed

    wanted = {"level": query["level"], "source": query["source"], "operation_id": query["operation_id"]}
    last = 0
    try:
        for line in app.client.items(f"/api/deployments/{number}/logs", "logs", **query):
            last = _emit(line, guest_only)
        feed = Feed(app.client, f"/api/deployments/{number}/events", on_loss=_tell_loss)
        for event in feed:
            if event.name != "log" or int(event.data["id"]) <= last:
                continue
            last = int(event.data["id"])
            if all(value is None or event.data.get(name) == value for name, value in wanted.items()):
                _emit(event.data, guest_only)
    except KeyboardInterrupt:
        return


def _emit(line: Mapping[str, Any], guest_only: bool | None) -> int:
    if guest_only is None:
        click.echo(json.dumps(line, ensure_ascii=False))
    else:
        print_line(line, guest_only)
    return int(line["id"])


def print_line(line: Mapping[str, Any], guest_only: bool = False) -> None:
    """Print a line of a log; of the guest's own output alone, as the guest wrote it."""
    message = printable(str(line["message"]))
    if guest_only:
        click.echo(message)
        return
    level = str(line.get("level") or "")
    colour = {"ERROR": "red", "CRITICAL": "red", "WARNING": "yellow"}.get(level.upper())
    moment = str(line["timestamp"])[11:23]
    where = f"{line.get('step') or ''}{'|' if line.get('source') == 'guest' else ':'}"
    click.echo(f"{click.style(moment, dim=True)} {click.style(where, fg=colour)} {message}")


def _tell_loss(reason: str) -> None:
    click.echo(f"{reason} Reconnecting …", err=True)
