"""What changes a cluster that is managed already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from iceshelves.cli import asking
from iceshelves.cli.app import App, pass_app
from iceshelves.cli.client import segment
from iceshelves.cli.commands.deployments import confirm_by_name
from iceshelves.cli.completion import complete_cluster
from iceshelves.cli.values import mapping_from_file
from iceshelves.core.errors import InvalidInput, NotFound


@click.command()
@click.argument("name", shell_complete=complete_cluster)
@click.option("-y", "--yes", is_flag=True, help="Do not ask; needed where there is no terminal.")
@pass_app
def delete(app: App, name: str, yes: bool) -> None:
    """Forget a cluster; nothing on it is touched."""
    if not yes:
        confirm_by_name(name, f"This removes the cluster {name} from the server.")
    app.client.delete(f"/api/clusters/{segment(name)}")
    click.echo(f"Removed {name}.")


@click.command("set")
@click.argument("name", shell_complete=complete_cluster)
@click.option("--description", metavar="TEXT", help="What it is, for people.")
@click.option("--endpoint", "--socket", metavar="ADDRESS", help="Its new address, of the same method.")
@click.option("--project", metavar="NAME", help="The hypervisor's project.")
@click.option("--max-operations", metavar="N", help="Operations at once on it; 'none' is the server's limit.")
@click.option("--options", metavar="FILE", help="Options of the provider from a YAML or JSON file.")
@click.option(
    "--poll-interval", type=click.IntRange(1, 3600), metavar="SECONDS", help="How often its agent polls."
)
@click.option(
    "--long-poll/--no-long-poll",
    default=None,
    help="Whether its agent waits at the server for work, which live access needs.",
)
@pass_app
def set_(
    app: App,
    /,
    name: str,
    description: str | None,
    endpoint: str | None,
    project: str | None,
    max_operations: str | None,
    options: str | None,
    **agent: int | bool | None,
) -> None:
    """Change a cluster's address, project, description, limit, options or agent.

    What it has to show of itself stays the same: after a move, accept what the new server shows.
    """
    given: dict[str, Any] = {"description": description, "endpoint_url": endpoint, "project": project}
    given |= {f"agent_{field}": value for field, value in agent.items()}
    body = {field: value for field, value in given.items() if value is not None}
    if max_operations is not None:
        body["max_operations"] = _limit(max_operations)
    if options is not None:
        body["options"] = mapping_from_file(options, "Options")
    if not body:
        raise click.UsageError("Say what is to be different; see --help.")
    app.client.patch(f"/api/clusters/{segment(name)}", body)
    click.echo(f"Changed {name}.")
    if not body.keys().isdisjoint(("endpoint_url", "project", "options")):
        click.echo(f"Next:  iceshelves cluster test {name}")


@click.command("accept-certificate")
@click.argument("name", shell_complete=complete_cluster)
@click.option("--fingerprint", metavar="SHA256", help="Of the new certificate; needed without a terminal.")
@pass_app
def accept_certificate(app: App, name: str, fingerprint: str | None) -> None:
    """Trust the certificate that a cluster's server shows now, in place of the former one.

    Both fingerprints are shown; compare the new one on the hypervisor before you say yes.
    """
    place = f"/api/clusters/{segment(name)}"
    chosen = fingerprint or _vouched(_looked_at(app, name, ""))
    app.client.post(f"{place}/accept-certificate", {"fingerprint": chosen})
    click.echo(f"{name} has to show {chosen} from now on.")


@click.command("accept-host-key")
@click.argument("name", shell_complete=complete_cluster)
@click.option("--fingerprint", metavar="SHA256:…", help="Of the new key; needed without a terminal.")
@click.option("--host", metavar="HOST", default="", help="Which server on the way.  [default: the last]")
@pass_app
def accept_host_key(app: App, name: str, fingerprint: str | None, host: str) -> None:
    """Trust the SSH host key that a cluster's server shows now, in place of the former one.

    Both fingerprints are shown; compare the new one on that machine before you say yes.
    """
    place = f"/api/clusters/{segment(name)}"
    chosen = fingerprint or _vouched(_looked_at(app, name, host))
    app.client.post(f"{place}/accept-host-key", {"fingerprint": chosen, "host": host})
    click.echo(f"{host or name} has to show {chosen} from now on.")


@click.command()
@click.argument("name", shell_complete=complete_cluster)
@pass_app
def rotate(app: App, name: str) -> None:
    """Renew our client certificate or SSH key to a cluster, or its agent's key.

    The present one stays in use until the new one has worked, so it may be interrupted at any time; run it
    again to go on.  An SSH key has to be added there by hand in between.
    """
    while True:
        found = app.client.post(f"/api/clusters/{segment(name)}/rotate")
        click.echo(found["message"])
        if found["status"] == "done":
            if found.get("next_step"):
                click.echo(found["next_step"])
            return
        click.echo(f"\n{str(found['public']).rstrip()}\n\n{found['next_step']}")
        if not asking.somebody_is_there():
            click.echo(f"Next:  iceshelves cluster rotate {name}   when that is done")
            return
        click.prompt("Press Enter when that is done", default="", show_default=False, err=True)


@click.command()
@click.argument("name", shell_complete=complete_cluster)
@pass_app
def certificate(app: App, name: str) -> None:
    """Print what a cluster has to trust: our client certificate, or our SSH public key.

    Incus takes it from standard input:  incus config trust add-certificate -
    LXD from a file:  lxc config trust add FILE
    """
    found = app.client.get(f"/api/clusters/{segment(name)}")
    public = found.get("client_certificate") or found.get("ssh_public_key")
    if not public:
        raise NotFound(
            f"IceShelves has no key to {name}.",
            code="no_certificate",
            hint="Only clusters over direct-api, and over ssh with a key, have one.",
        )
    click.echo(str(public).rstrip())


def _limit(text: str) -> int | None:
    if text == "none":
        return None
    if not text.isascii() or not text.isdigit():
        raise click.UsageError(f"--max-operations takes a number or 'none', not {text!r}.")
    return int(text)


def _looked_at(app: App, name: str, host: str) -> Mapping[str, Any]:
    """What the server in question shows now.

    Raises :class:`InvalidInput` where nobody can vouch for it, and ``host_not_on_the_way``.
    """
    if not asking.somebody_is_there():
        raise InvalidInput(
            "Nobody is here to compare fingerprints.",
            code="confirmation_needed",
            hint="Give the one that you have compared with --fingerprint.",
        )
    shown = app.client.post(f"/api/clusters/{segment(name)}/look")["shown"]
    if not host:
        last: Mapping[str, Any] = shown[-1]
        return last
    for one in shown:
        plain = f"[{one['host']}]" if ":" in one["host"] else one["host"]
        if host in (one["host"], f"{plain}:{one['port']}"):
            found: Mapping[str, Any] = one
            return found
    raise InvalidInput(
        f"{host} is not on the way to {name}.",
        code="host_not_on_the_way",
        hint=f"It leads over {', '.join(str(one['host']) for one in shown)}.",
    )


def _vouched(shown: Mapping[str, Any]) -> str:
    where = f"{shown['host']}:{shown['port']}"
    if shown["fingerprint"] == shown["expected"]:
        raise InvalidInput(
            f"{where} shows what it has to show: {shown['expected']}.",
            code="nothing_to_accept",
            hint="There is nothing to accept.",
        )
    click.echo(f"{where} has had to show\n    {shown['expected']}", err=True)
    found = str(shown["fingerprint"])
    asking.confirm_fingerprint(where, str(shown["kind"]), found)
    return found
