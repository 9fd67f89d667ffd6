"""``cluster add``: by flags, or as a conversation where no way to the cluster is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import click

from iceshelves.cli import asking
from iceshelves.cli.app import App, pass_app
from iceshelves.cli.asking import Hidden, somebody_is_there, text_of_file
from iceshelves.cli.checks import tell_test
from iceshelves.cli.client import segment
from iceshelves.cli.values import mapping_from_file
from iceshelves.core.errors import InvalidInput

TOKEN: Final = Hidden("Trust token", "ICESHELVES_TRUST_TOKEN")
PASSWORD: Final = Hidden("Trust password", "ICESHELVES_TRUST_PASSWORD")
_SSH_PORT: Final = 22
_PEM: Final = "-----BEGIN CERTIFICATE-----"
#: the ways by the flags that choose them
_FLAGS: Final = {"unix-socket": "--socket", "direct-api": "--direct", "ssh": "--ssh", "agent-poll": "--agent"}


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line says of the way to the cluster, as it was given."""

    provider: str | None
    socket: str | None
    direct: str | None
    ssh: str | None
    agent: bool
    token: bool
    token_file: str | None
    password: bool
    password_file: str | None
    fingerprint: str | None
    server_certificate: str | None
    certificate: str | None
    key: str | None
    ssh_agent: bool
    host_key: tuple[str, ...]
    jump: tuple[str, ...]
    poll_interval: int | None

    @property
    def by_token(self) -> bool:
        """Whether a trust token is to be used."""
        return self.token or self.token_file is not None

    @property
    def by_password(self) -> bool:
        """Whether a trust password is to be used."""
        return self.password or self.password_file is not None

    @property
    def methods(self) -> list[str]:
        """The connection methods that are asked for; a token brings the address with it."""
        found = {
            "unix-socket": self.socket is not None,
            "direct-api": self.direct is not None or (self.by_token and self.ssh is None),
            "ssh": self.ssh is not None,
            "agent-poll": self.agent,
        }
        return [method for method, given in found.items() if given]

    def check_options(self, method: str) -> None:
        """Refuse what ``method`` would drop: a pin above all must never be lost silently.

        Raises :class:`InvalidInput` ``field_without_effect``.
        """
        direct, ssh, agent = ("direct-api",), ("ssh",), ("agent-poll",)
        meant: list[tuple[str, object, tuple[str, ...]]] = [
            ("--token", self.token, direct),
            ("--token-file", self.token_file, direct),
            ("--password", self.password, direct),
            ("--password-file", self.password_file, direct),
            ("--fingerprint", self.fingerprint, direct),
            ("--server-certificate", self.server_certificate, direct),
            ("--certificate", self.certificate, direct),
            ("--key", self.key, direct + ssh),
            ("--ssh-agent", self.ssh_agent, ssh),
            ("--host-key", self.host_key, ssh),
            ("--jump", self.jump, ssh),
            ("--poll-interval", self.poll_interval, agent),
        ]
        for option, given, methods in meant:
            if given and method not in methods:
                ways = " or ".join(_FLAGS[way] for way in methods)
                raise InvalidInput(
                    f"{option} has no effect with {_FLAGS[method]}.",
                    code="field_without_effect",
                    hint=f"Leave it out; it belongs to {ways}.",
                )


@click.command()
@click.argument("name")
@click.option("--provider", type=click.Choice(["incus", "lxd", "fake"]), help="[default: incus]")
@click.option(
    "--socket",
    "--endpoint",
    metavar="PATH",
    help="Its Unix socket here.  [default: the provider's usual one]",
)
@click.option("--direct", metavar="URL", help="Its HTTPS API: https://host:8443.")
@click.option(
    "--ssh", metavar="URL", help="Its socket, through SSH: ssh://user@host[:port][/path/to/unix.socket]."
)
@click.option("--agent", is_flag=True, help="An agent beside it polls this server.")
@click.option("--token", is_flag=True, help="Have it trust us by a token, which is asked for.")
@click.option("--token-file", metavar="FILE", help="The same with the token from a file; '-' is stdin.")
@click.option("--password", is_flag=True, help="Have it trust us by its trust password, which is asked for.")
@click.option("--password-file", metavar="FILE", help="The same with the password from a file.")
@click.option("--fingerprint", metavar="SHA256", help="Of the certificate that the server has to show.")
@click.option(
    "--server-certificate", metavar="FILE", help="That certificate itself, or its authority's (PEM)."
)
@click.option("--certificate", metavar="FILE", help="Our client certificate (PEM).  [default: one is made]")
@click.option("--key", metavar="FILE", help="Its key, or our SSH key.  [default: one is made]")
@click.option("--ssh-agent", is_flag=True, help="Log in with the keys of the server's ssh-agent.")
@click.option(
    "--host-key",
    multiple=True,
    metavar="KEY",
    help="SSH host key, or its SHA256:…; with jumps one for each in their order, the cluster's last.",
)
@click.option("--jump", multiple=True, metavar="[USER@]HOST[:PORT]", help="Jump over this SSH server first.")
@click.option(
    "--project", metavar="NAME", default="default", show_default=True, help="The hypervisor's project."
)
@click.option("--description", metavar="TEXT", default="", help="What it is, for people.")
@click.option("--max-operations", type=click.IntRange(1, 1000), metavar="N", help="Operations at once on it.")
@click.option(
    "--poll-interval", type=click.IntRange(1, 3600), metavar="SECONDS", help="Between an agent's polls."
)
@click.option("--options", metavar="FILE", help="Options of the provider from a YAML or JSON file.")
@click.option("--no-test", is_flag=True, help="Do not test it afterwards.")
@pass_app
def add(
    app: App,
    /,
    name: str,
    project: str,
    description: str,
    max_operations: int | None,
    options: str | None,
    no_test: bool,
    **way: Any,
) -> int:
    """Add a cluster, and test it.

    Without a way to it, you are asked on a terminal; elsewhere it is the provider's usual socket.  Tokens
    and passwords are asked for, read from a file, or taken from ICESHELVES_TRUST_TOKEN and
    ICESHELVES_TRUST_PASSWORD; they are never arguments.  What a server shows of itself is only trusted when
    you vouch for it.
    """
    wish = Wish(**way)
    body: dict[str, Any] = {
        "name": name,
        "provider": wish.provider or "incus",
        **_way(wish),
        "project": project,
        "description": description,
        "options": mapping_from_file(options, "Options") if options else {},
    }
    if max_operations is not None:
        body["max_operations"] = max_operations
    if wish.poll_interval is not None:
        body["agent_poll_interval"] = wish.poll_interval
    added = _add(app, body)
    click.echo(f"Added {name}.")
    if body["connection_method"] == "agent-poll":
        click.echo(f"Next:  iceshelves cluster enroll {name}   prints the line to run beside the hypervisor")
        return 0
    if added.get("next_step") and not _done(name, added):
        return 0
    if no_test:
        click.echo(f"Next:  iceshelves cluster test {name}")
        return 0
    status = tell_test(app.client.post(f"/api/clusters/{segment(name)}/test"))
    if status:
        click.echo(
            f"Next:  iceshelves cluster test {name}     when that is mended\n"
            f"       iceshelves cluster set {name} …    with --endpoint, --project or --options where those"
            " are wrong\n"
            f"       iceshelves cluster delete {name}   only to add it anew in another way",
            err=True,
        )
    return status


def _way(wish: Wish) -> dict[str, Any]:
    """The part of the request that says how the cluster is reached."""
    if len(wish.methods) > 1:
        raise click.UsageError("Give one way to the cluster: --socket, --direct, --ssh or --agent.")
    method = wish.methods[0] if wish.methods else ""
    if not method and wish.provider != "fake" and somebody_is_there():
        return _conversation(wish)
    wish.check_options(method or "unix-socket")
    if method == "direct-api":
        return _direct(wish, wish.direct or "")
    if method == "ssh":
        return _ssh(wish, wish.ssh or "")
    return {"connection_method": method or "unix-socket", "endpoint_url": wish.socket or ""}


def _direct(wish: Wish, url: str) -> dict[str, Any]:
    if wish.by_token and wish.by_password:
        raise click.UsageError("Give a token or a password, not both.")
    if wish.fingerprint and wish.server_certificate:
        raise click.UsageError("Give --fingerprint or --server-certificate, not both.")
    if wish.certificate and not wish.key:
        raise click.UsageError("--certificate needs --key, the private key of that certificate.")
    if wish.key and not wish.certificate:
        raise click.UsageError("--key needs --certificate, the certificate of that key.")
    body: dict[str, Any] = {"connection_method": "direct-api", "endpoint_url": url}
    if wish.fingerprint:
        body["server_certificate"] = wish.fingerprint
    if wish.server_certificate:
        body["server_certificate"] = _certificate_in(wish.server_certificate)
    if wish.certificate:
        body["client_cert"] = text_of_file(wish.certificate)
    if wish.key:
        body["client_key"] = text_of_file(wish.key)
    if wish.by_token:
        body["trust_token"] = TOKEN.read(wish.token_file).reveal()
    if wish.by_password:
        body["trust_password"] = PASSWORD.read(wish.password_file).reveal()
    return body


def _certificate_in(file: str) -> str:
    """The certificate in ``file``: anything else would be taken for a fingerprint.

    Raises :class:`InvalidInput` ``invalid_certificate``.
    """
    text = text_of_file(file)
    if _PEM not in text:
        raise InvalidInput(
            f"{file} holds no certificate in PEM.",
            code="invalid_certificate",
            hint="Give a file with BEGIN CERTIFICATE in it, or the fingerprint with --fingerprint.",
        )
    return text[text.index(_PEM) :]


def _ssh(wish: Wish, url: str) -> dict[str, Any]:
    jumps = [_jump(text) for text in wish.jump]
    if len(wish.host_key) > len(jumps) + 1:
        raise click.UsageError("There are more host keys than servers on the way.")
    for jump, key in zip(jumps, wish.host_key, strict=False):
        jump["host_key"] = key
    body: dict[str, Any] = {"connection_method": "ssh", "endpoint_url": url, "ssh_jumps": jumps}
    if len(wish.host_key) == len(jumps) + 1:
        body["ssh_host_key"] = wish.host_key[-1]
    if wish.ssh_agent:
        body["ssh_auth"] = "ssh-agent"
    if wish.key:
        body["ssh_key"] = text_of_file(wish.key)
    return body


def _jump(text: str) -> dict[str, Any]:
    """``[user@]host[:port]``, an IPv6 address in brackets."""
    user, _, place = text.removeprefix("ssh://").rpartition("@")
    host, _, port = place.rpartition(":") if place.rpartition("]")[2].count(":") else (place, "", "")
    if not host or (port and not port.isdigit()):
        raise click.UsageError(f"--jump takes [USER@]HOST[:PORT], not {text!r}.")
    return {"host": host.strip("[]"), "user": user or "root", "port": int(port or _SSH_PORT), "host_key": ""}


def _conversation(wish: Wish) -> dict[str, Any]:
    """Ask for what the flags do not say."""
    family = wish.provider or asking.choose(
        "What runs there?", [("incus", "Incus"), ("lxd", "LXD"), ("fake", "nothing: use the built-in fake")]
    )
    body: dict[str, Any] = {"provider": family}
    if family == "fake":
        wish.check_options("unix-socket")
        return {**body, "connection_method": "unix-socket", "endpoint_url": ""}
    method = asking.choose(
        "How does this server reach it?",
        [
            ("unix-socket", "it runs on the same machine (its Unix socket)"),
            ("direct-api", "over HTTPS, at port 8443 as a rule"),
            ("ssh", "over SSH, with nothing else open there"),
            ("agent-poll", "not at all: an agent there polls this server"),
        ],
    )
    wish.check_options(method)
    if method == "unix-socket":
        path = asking.ask("Its socket (Enter for the usual one)", "")
        return {**body, "connection_method": method, "endpoint_url": path}
    if method == "direct-api":
        return {**body, **_ask_for_direct(wish, family)}
    if method == "ssh":
        url = asking.ask("Its address (ssh://user@host[:port][/path/to/unix.socket])")
        return {**body, **_ssh(wish, url if "://" in url else f"ssh://{url}")}
    return {**body, "connection_method": method}


def _ask_for_direct(wish: Wish, family: str) -> dict[str, Any]:
    tool = (
        "lxc config trust add --name iceshelves" if family == "lxd" else "incus config trust add iceshelves"
    )
    proof = asking.choose(
        "How does it come to trust this server?",
        [
            ("token", f"by a token; make one there now: {tool}"),
            *([("password", "by its trust password")] if family == "lxd" else []),
            ("hand", "by hand: I add this server's certificate there afterwards"),
        ],
    )
    body: dict[str, Any] = {}
    if proof == "token":
        body["trust_token"] = TOKEN.read(None).reveal()
        url = asking.ask("Its address (Enter for those in the token)", "")
    else:
        url = asking.ask("Its address (https://host:8443)")
    if proof == "password":
        body["trust_password"] = PASSWORD.read(None).reveal()
    return {**_direct(wish, url), **body}


def _add(app: App, body: dict[str, Any]) -> dict[str, Any]:
    """Add it; what a server shows on the way is asked about, where somebody is there to vouch for it."""
    while True:
        try:
            return app.client.post("/api/clusters", body)
        except InvalidInput as error:
            if error.code not in ("fingerprint_needed", "host_key_needed") or not somebody_is_there():
                raise
            _vouch(body, error)


def _vouch(body: dict[str, Any], error: InvalidInput) -> None:
    """Put what the user vouches for into ``body``."""
    details: Mapping[str, Any] = error.details
    if error.code == "host_key_needed":
        click.echo(f"{error.message}\n{error.hint}", err=True)
        given = asking.ask(f"The host key of {details['where']}")
    else:
        given = str(details["found"])
        asking.confirm_fingerprint(str(details["where"]), str(details["kind"]), given)
    jumps = body.get("ssh_jumps") or []
    if details["kind"] == "certificate":
        body["server_certificate"] = given
    elif int(details["hop"]) < len(jumps):
        jumps[int(details["hop"])]["host_key"] = given
    else:
        body["ssh_host_key"] = given


def _done(name: str, added: Mapping[str, Any]) -> bool:
    """Tell what is still to be done there; whether somebody says that it is."""
    click.echo(f"It does not let this server in yet.  {added['next_step']}\n")
    click.echo(str(added.get("client_certificate") or added.get("ssh_public_key") or "").rstrip())
    click.echo(f"\nThis is also printed by: iceshelves cluster certificate {name}")
    if not somebody_is_there():
        click.echo(f"Next:  iceshelves cluster test {name}   when that is done")
        return False
    click.prompt("Press Enter when that is done", default="", show_default=False, err=True)
    return True
