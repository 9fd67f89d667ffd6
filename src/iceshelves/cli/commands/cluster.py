"""``cluster``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click

from iceshelves.cli.app import App, pass_app
from iceshelves.cli.client import segment
from iceshelves.cli.commands.deployments import confirm_by_name
from iceshelves.cli.completion import complete_cluster
from iceshelves.cli.output import Column, Output, facts, output_options
from iceshelves.cli.problems import ERROR
from iceshelves.cli.steps import age
from iceshelves.cli.text import printable
from iceshelves.cli.values import mapping_from_file

_COLUMNS: Final = (
    Column("NAME", "name"),
    Column("PROVIDER", "provider"),
    Column("CONNECTION", "connection_method"),
    Column("ENDPOINT", "endpoint_url"),
    Column("STATUS", "status"),
    Column("CHECKED", lambda entry: age(entry.get("last_check"))),
)


@click.group()
def cluster() -> None:
    """Add, list, show, test and delete clusters."""


@cluster.command()
@click.argument("name")
@click.option("--provider", type=click.Choice(["incus", "lxd", "fake"]), default="incus", show_default=True)
@click.option(
    "--endpoint", "--socket", metavar="PATH", help="Its Unix socket.  [default: the provider's usual one]"
)
@click.option(
    "--project", metavar="NAME", default="default", show_default=True, help="The hypervisor's project."
)
@click.option("--description", metavar="TEXT", default="", help="What it is, for people.")
@click.option("--max-operations", type=click.IntRange(1, 1000), metavar="N", help="Operations at once on it.")
@click.option("--options", metavar="FILE", help="Options of the provider from a YAML or JSON file.")
@click.option("--no-test", is_flag=True, help="Do not test it afterwards.")
@pass_app
def add(
    app: App,
    name: str,
    provider: str,
    endpoint: str | None,
    project: str,
    description: str,
    max_operations: int | None,
    options: str | None,
    no_test: bool,
) -> int:
    """Add a cluster, and test it."""
    body: dict[str, Any] = {
        "name": name,
        "provider": provider,
        "connection_method": "unix-socket",
        "endpoint_url": endpoint or "",
        "project": project,
        "description": description,
        "options": mapping_from_file(options, "Options") if options else {},
    }
    if max_operations is not None:
        body["max_operations"] = max_operations
    app.client.post("/api/clusters", body)
    click.echo(f"Added {name}.")
    if no_test:
        return 0
    status = tell_test(_test(app, name))
    if status:
        click.echo(
            f"Next:  iceshelves cluster test {name}     when that is mended\n"
            f"       iceshelves cluster delete {name}   to add it anew, with another address",
            err=True,
        )
    return status


@cluster.command("list")
@output_options
@pass_app
def list_clusters(app: App, output: Output) -> None:
    """List clusters."""
    entries = list(app.client.items("/api/clusters", "clusters"))
    output.many(entries, _COLUMNS, "No clusters.  Add one: iceshelves cluster add local")


@cluster.command()
@click.argument("name", shell_complete=complete_cluster)
@output_options
@pass_app
def show(app: App, name: str, output: Output) -> None:
    """Show a cluster: its health, members and resources."""
    found = app.client.get(f"/api/clusters/{segment(name)}")
    output.one(found, lambda: _text(found))


@cluster.command()
@click.argument("name", shell_complete=complete_cluster)
@output_options
@pass_app
def test(app: App, name: str, output: Output) -> int:
    """Check the connection to a cluster step by step; each failure comes with its remedy."""
    report = _test(app, name)
    if output.is_for_people:
        return tell_test(report)
    output.one(report, str)
    return 0 if _passed(report) else ERROR


@cluster.command()
@click.argument("name", shell_complete=complete_cluster)
@click.option("-y", "--yes", is_flag=True, help="Do not ask; needed where there is no terminal.")
@pass_app
def delete(app: App, name: str, yes: bool) -> None:
    """Forget a cluster.  Nothing on it is touched; it must have no deployments left."""
    if not yes:
        confirm_by_name(name, f"This removes the cluster {name} from the server.")
    app.client.delete(f"/api/clusters/{segment(name)}")
    click.echo(f"Removed {name}.")


def tell_test(report: Mapping[str, Any]) -> int:
    """Print the checks of a test; the exit status."""
    details = report.get("details") or {}
    for check in details.get("checks") or []:
        click.echo(check_line(bool(check["ok"]), str(check["name"]), str(check.get("message") or "")))
        if not check["ok"] and check.get("remedy"):
            click.echo(f"    {printable(str(check['remedy']))}")
    if not details.get("checks"):
        click.echo(check_line(_passed(report), "connection", str(details.get("message") or "")))
    return 0 if _passed(report) else ERROR


def check_line(ok: bool, name: str, message: str) -> str:
    """One check for people: the state is a mark and a word's colour, never the colour alone."""
    mark = click.style("✓", fg="green") if ok else click.style("✗", fg="red")
    return f"{mark} {name}: {printable(message)}" if message else f"{mark} {name}"


def _test(app: App, name: str) -> dict[str, Any]:
    return app.client.post(f"/api/clusters/{segment(name)}/test")


def _passed(report: Mapping[str, Any]) -> bool:
    checks = (report.get("details") or {}).get("checks") or []
    return report.get("status") == "active" and all(check["ok"] for check in checks)


def _text(found: Mapping[str, Any]) -> str:
    health = found.get("health") or {}
    metadata = found.get("metadata") or {}
    members = [
        member.get("name") if isinstance(member, dict) else member for member in metadata.get("members") or []
    ]
    return facts(
        [
            ("Name", found["name"]),
            ("Description", found.get("description")),
            ("Provider", found.get("provider")),
            ("Connection", f"{found.get('connection_method')} {found.get('endpoint_url') or ''}".strip()),
            ("Project", found.get("project")),
            ("Status", found.get("status")),
            ("Health", health.get("message")),
            ("Checked", health.get("checked_at")),
            ("Members", members),
            ("Resources", metadata.get("resources")),
            ("At once", found.get("max_operations")),
        ]
    )
