"""What is done about a cluster's agent: inviting one, and shutting it out."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

import click

from iceshelves.cli.app import App, pass_app
from iceshelves.cli.client import segment
from iceshelves.cli.completion import complete_cluster
from iceshelves.cli.output import Output, output_options

#: addresses that lead elsewhere on every machine
_OWN: Final = frozenset({"127.0.0.1", "localhost", "::1"})


@click.command()
@click.argument("name", shell_complete=complete_cluster)
@click.option(
    "--original", is_flag=True, help="Print the environment file of an agent of the original instead."
)
@output_options
@pass_app
def enroll(app: App, name: str, original: bool, output: Output) -> None:
    """Print the line that makes a machine the cluster's agent.

    The token in it is good once, and for an hour.  An agent that is enrolled already goes on working until
    another one uses the token.

    With --original, a key for an agent of the original is printed.  It lasts until another one is made, and
    shuts out the agent before it at once.
    """
    if original:
        _enroll_original(app, name, output)
        return
    made = app.client.post(f"/api/clusters/{segment(name)}/enroll", {})
    server = app.client.server.url
    line = f"echo {made['token']} | sudo iceshelves agent --server {server} --enroll -"
    output.one({**made, "command": line}, lambda: _told(line))
    if urlsplit(server).hostname in _OWN:
        click.echo(
            f"{server} is this machine's own address: put the one that the hypervisor reaches in its place.",
            err=True,
        )


def _enroll_original(app: App, name: str, output: Output) -> None:
    made = app.client.post(f"/api/clusters/{segment(name)}/enroll-original", {})
    values = {
        "ICESHELVES_SERVER": app.client.server.url,
        "ICESHELVES_CLUSTER_ID": made["cluster_id"],
        "ICESHELVES_AGENT_KEY": made["agent_key"],
        "ICESHELVES_POLL_INTERVAL": made["poll_interval"],
    }
    # nothing but the file, so that it can be sent to where it belongs
    output.one(made, lambda: "\n".join(f"{key}={values[key]}" for key in values))


def _told(line: str) -> str:
    return (
        "Beside the hypervisor, once and within the hour:\n\n"
        f"    {line}\n\n"
        "Add --install to have systemd run it from then on."
    )


@click.command("revoke-agent")
@click.argument("name", shell_complete=complete_cluster)
@pass_app
def revoke_agent(app: App, name: str) -> None:
    """Shut a cluster's agent out.

    What it does right now it cannot report any more.
    """
    app.client.post(f"/api/clusters/{segment(name)}/agent/revoke", {})
    click.echo(f"The agent of {name} is shut out.  To have one again: iceshelves cluster enroll {name}")
