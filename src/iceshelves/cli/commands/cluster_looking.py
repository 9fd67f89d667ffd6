"""``cluster list``, ``show`` and ``test``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click

from iceshelves.cli.app import App, pass_app
from iceshelves.cli.checks import passed, tell_test
from iceshelves.cli.client import segment
from iceshelves.cli.completion import complete_cluster
from iceshelves.cli.output import Column, Output, facts, output_options
from iceshelves.cli.problems import ERROR
from iceshelves.cli.steps import age

_COLUMNS: Final = (
    Column("NAME", "name"),
    Column("PROVIDER", "provider"),
    Column("CONNECTION", "connection_method"),
    Column("ENDPOINT", "endpoint_url"),
    Column("STATUS", "status"),
    Column("CHECKED", lambda entry: age(entry.get("last_check"))),
)


@click.command("list")
@output_options
@pass_app
def list_clusters(app: App, output: Output) -> None:
    """List clusters."""
    entries = list(app.client.items("/api/clusters", "clusters"))
    output.many(entries, _COLUMNS, "No clusters.  Add one: iceshelves cluster add local")


@click.command()
@click.argument("name", shell_complete=complete_cluster)
@output_options
@pass_app
def show(app: App, name: str, output: Output) -> None:
    """Show a cluster: how it is reached, its health, members and resources."""
    found = app.client.get(f"/api/clusters/{segment(name)}")
    output.one(found, lambda: _text(found))


@click.command()
@click.argument("name", shell_complete=complete_cluster)
@output_options
@pass_app
def test(app: App, name: str, output: Output) -> int:
    """Check the connection to a cluster step by step; each failure comes with its remedy."""
    report = app.client.post(f"/api/clusters/{segment(name)}/test")
    if output.is_for_people:
        return tell_test(report)
    output.one(report, str)
    return 0 if passed(report) else ERROR


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
            ("Has to show", _pins(found)),
            ("Our certificate", _ours(found)),
            ("Our SSH key", found.get("ssh_public_key")),
            ("Agent", _agent(found)),
            ("Status", _status(found, health)),
            ("Health", health.get("message")),
            ("Checked", health.get("checked_at")),
            ("Members", members),
            ("Resources", metadata.get("resources")),
            ("At once", found.get("max_operations")),
        ]
    )


def _status(found: Mapping[str, Any], health: Mapping[str, Any]) -> str:
    since = health.get("since")
    return f"{found.get('status')} since {since}" if since else str(found.get("status"))


def _pins(found: Mapping[str, Any]) -> str:
    """What the servers on the way have to show, as their own tools print it."""
    if found.get("server_fingerprint"):
        return f"{found['server_fingerprint']} (until {_day(found.get('server_certificate_expires'))})"
    keys = found.get("ssh_host_keys") or []
    return "\n".join(f"{key['user']}@{key['host']}:{key['port']} {key['fingerprint']}" for key in keys)


def _ours(found: Mapping[str, Any]) -> str:
    if not found.get("certificate_expires"):
        return ""
    rotating = ", being rotated" if found.get("rotating") else ""
    return f"until {_day(found['certificate_expires'])}{rotating}"


def _agent(found: Mapping[str, Any]) -> str:
    agent = found.get("agent")
    if not agent:
        return ""
    seen = f"seen {age(agent['last_seen'])} ago" if agent.get("last_seen") else "not seen yet"
    return f"{agent.get('version') or ''} on {agent.get('host') or 'no host yet'}, {seen}".strip()


def _day(moment: object) -> str:
    return str(moment or "")[:10]
