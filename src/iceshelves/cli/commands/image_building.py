"""``image build``, ``builds``, ``show-build`` and ``logs``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import click

from iceshelves.cli.app import App, pass_app
from iceshelves.cli.builds import (
    Order,
    Waiting,
    Wishes,
    build_text,
    carry_out,
    duration_of,
    keep_lock,
    kept_lock,
)
from iceshelves.cli.client import segment
from iceshelves.cli.commands.logs import LOG_COLUMNS, print_line
from iceshelves.cli.completion import complete_appliance, complete_build, complete_cluster
from iceshelves.cli.listing import limit_option, told_if_cut
from iceshelves.cli.output import Column, Output, output_options
from iceshelves.cli.recipes import read_lock, recipe_of
from iceshelves.cli.steps import age
from iceshelves.cli.values import Duration

_COLUMNS: Final = (
    Column("ID", "id"),
    Column("APPLIANCE", "appliance"),
    Column("VERSION", "result.version"),
    Column("ARCH", "architecture"),
    Column("STATUS", "status"),
    Column("CHANNEL", "channel"),
    Column("TIME", duration_of),
    Column("AGE", lambda entry: age(entry.get("created_on"))),
    Column("BY", "created_by"),
)


@click.command()
@click.argument("source", metavar="FOLDER|NAME", shell_complete=complete_appliance)
@click.option("--arch", metavar="NAME", help="For this architecture.  [default: the recipe's first]")
@click.option(
    "--type",
    "types",
    multiple=True,
    type=click.Choice(["container", "virtual-machine"]),
    help="Only this type of image; may be repeated.  [default: all of the recipe's]",
)
@click.option("--fast", is_flag=True, help="Pack fast rather than small, for trying things out.")
@click.option(
    "--lock", type=click.Path(path_type=Path), metavar="FILE", help="Build exactly what this lock says."
)
@click.option(
    "--new-lock", is_flag=True, help="Decide all versions anew, and replace the lock beside the recipe."
)
@click.option(
    "--gate",
    metavar="CLUSTER",
    shell_complete=complete_cluster,
    help="Publish only if it starts and is healthy on this cluster.",
)
@click.option(
    "--channel", metavar="NAME", default="stable", show_default=True, help="The channel that is to show it."
)
@click.option("--no-publish", is_flag=True, help="Do not publish it.")
@click.option("--timeout", type=Duration(), help="How long it may take, such as 10m.  [default: 1h]")
@click.option(
    "--no-wait",
    "--detach",
    "no_wait",
    is_flag=True,
    help="Return as soon as the server has accepted the work.",
)
@click.option("-v", "--verbose", is_flag=True, help="Show all log lines.")
@output_options
@pass_app
def build(
    app: App,
    /,
    source: str,
    arch: str | None,
    types: tuple[str, ...],
    fast: bool,
    lock: Path | None,
    new_lock: bool,
    gate: str | None,
    channel: str,
    no_publish: bool,
    timeout: float | None,
    no_wait: bool,
    verbose: bool,
    output: Output,
) -> int:
    """Build the image of an appliance, and publish it.

    FOLDER has an appliance.yaml in it; NAME is a built-in appliance, where no folder here is called so.

    The packages and their versions are those of the file appliance.lock beside the recipe.  Where there is
    none they are the newest, and the lock is written.

    Ctrl-C cancels the build; Ctrl-C again does not wait for the end of that.
    """
    if lock is not None and new_lock:
        raise click.UsageError("Give --lock or --new-lock, not both.")
    recipe = recipe_of(source)
    wishes = Wishes(arch, types, fast, gate, None if no_publish else channel, timeout)
    chosen = read_lock(lock) if lock else None if new_lock else kept_lock(recipe, arch)
    order = Order(recipe, wishes, chosen)
    status, made = carry_out(app, order, Waiting(not no_wait, verbose), output)
    if status == 0 and lock is None:
        keep_lock(recipe, made, replacing=new_lock)
    return status


@click.command()
@click.option("--appliance", metavar="NAME", help="Only those of this appliance.")
@limit_option(20)
@output_options
@pass_app
def builds(app: App, appliance: str | None, limit: int, output: Output) -> None:
    """List builds, the newest first."""
    entries = list(app.client.items("/api/builds", "builds", limit=limit, appliance=appliance))
    output.many(entries, _COLUMNS, "No builds.  Try: iceshelves image build nginx")
    told_if_cut(entries, limit)


@click.command("show-build")
@click.argument("build_id", metavar="ID", shell_complete=complete_build)
@click.option("--lock", is_flag=True, help="Print its lock instead, which builds the same again.")
@output_options
@pass_app
def show_build(app: App, build_id: str, lock: bool, output: Output) -> None:
    """Show a build and what it made."""
    found = _find(app, build_id)
    output.one(found, lambda: str(found.get("lock") or "").rstrip() if lock else build_text(found))


@click.command()
@click.argument("build_id", metavar="ID", shell_complete=complete_build)
@click.option("-f", "--follow", is_flag=True, help="Go on printing until it ends, or until Ctrl-C.")
@output_options
@pass_app
def logs(app: App, build_id: str, follow: bool, output: Output) -> None:
    """Print the log of a build."""
    if follow and output.format not in ("table", "json"):
        raise click.UsageError(f"--follow does not go with --format {output.format}.")
    lines = _lines(app, str(_find(app, build_id)["operation_id"]), to_its_end=follow)
    if output.is_for_people:
        _print_all(lines)
    elif follow:
        for line in lines:
            click.echo(json.dumps(line, ensure_ascii=False))
    else:
        output.many(list(lines), LOG_COLUMNS, "")


def _find(app: App, build_id: str) -> dict[str, Any]:
    if not build_id.isdecimal():
        raise click.UsageError(f"A build is named by its number, not {build_id!r}; see 'image builds'.")
    return app.client.get(f"/api/builds/{segment(build_id)}")


def _lines(app: App, operation_id: str, *, to_its_end: bool) -> Iterator[Mapping[str, Any]]:
    """The lines that there are, and ``to_its_end`` those that come; ends at Ctrl-C.

    On the stream, the state of the operation stands behind all lines that there are by then.
    """
    from iceshelves.cli.events import Feed

    def tell_loss(reason: str) -> None:
        click.echo(f"{reason} Reconnecting …", err=True)

    last = 0
    try:
        for event in Feed(app.client, f"/api/operations/{segment(operation_id)}/events", on_loss=tell_loss):
            if event.name == "log" and int(event.data["id"]) > last:
                last = int(event.data["id"])
                yield event.data
            elif event.name == "operation" and not to_its_end:
                return
    except KeyboardInterrupt:
        return


def _print_all(lines: Iterator[Mapping[str, Any]]) -> None:
    count = 0
    for line in lines:
        print_line(line)
        count += 1
    if not count:
        click.echo("There is no line in the log.", err=True)
