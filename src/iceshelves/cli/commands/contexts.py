"""``login`` and ``context``: which servers there are, and which one is meant."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import click

from iceshelves.cli import servers
from iceshelves.cli.app import App, pass_app
from iceshelves.cli.completion import complete_context
from iceshelves.cli.output import Column, Output, output_options
from iceshelves.cli.servers import Server, context_name_for, normalised_url
from iceshelves.core.errors import InvalidInput, Unauthenticated
from iceshelves.core.secret import Secret

_MAX_TOKEN: Final = 4096
_WHENCE: Final = "The server shows one at its first start; 'iceshelves admin-token' there makes a new one."


@click.command()
@click.argument("url")
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    help="Read the token from this file; '-' is standard input.",
)
@click.option("--name", metavar="NAME", help="What to call this server.  [default: its host]")
@pass_app
def login(app: App, url: str, token_file: str | None, name: str | None) -> None:
    """Log in to a server and remember it.

    Without --token-file the token is asked for on a terminal, or read from standard input.  It is tried
    before it is saved.
    """
    address = normalised_url(url)
    server = Server(address, _read_token(token_file))
    client = app.connect(server)
    try:
        me = client.get("/api/whoami")
    except Unauthenticated as error:
        error.hint = _WHENCE
        raise
    finally:
        client.close()
    chosen = name or context_name_for(address)
    servers.save(app.contexts_file(), app.contexts().with_server(chosen, server))
    click.echo(f"Logged in to {address} as {me['name']} ({me['role']}); saved as context {chosen!r}.")
    if not server.is_private:
        click.echo(f"Warning: {address} is not encrypted; others on the way can read your token.", err=True)


@click.group()
def context() -> None:
    """List, choose and forget servers."""


@context.command("list")
@output_options
@pass_app
def list_contexts(app: App, output: Output) -> None:
    """List the servers that you logged in to."""
    contexts = app.contexts()
    entries = [
        {"name": name, "url": server.url, "current": name == contexts.current}
        for name, server in contexts.servers.items()
    ]
    columns = [Column("NAME", "name"), Column("URL", "url"), Column("CURRENT", "current")]
    output.many(entries, columns, "You are not logged in to any server.  Start with: iceshelves login URL")


@context.command()
@click.argument("name", shell_complete=complete_context)
@pass_app
def use(app: App, name: str) -> None:
    """Make NAME the current server."""
    servers.save(app.contexts_file(), app.contexts().using(name))
    click.echo(f"Now using {name}.")


@context.command()
@click.argument("name", shell_complete=complete_context)
@pass_app
def remove(app: App, name: str) -> None:
    """Forget NAME and its token."""
    servers.save(app.contexts_file(), app.contexts().without(name))
    click.echo(f"Forgot {name}.  Its token is still valid on the server.")


def _read_token(token_file: str | None) -> Secret:
    if token_file and token_file != "-":
        text = Path(token_file).read_text()[:_MAX_TOKEN]
    elif token_file is None and sys.stdin.isatty():
        text = click.prompt("Token", hide_input=True, err=True)
    else:
        text = sys.stdin.read(_MAX_TOKEN)
    token = text.strip()
    if not token:
        raise InvalidInput(
            "No token was given.",
            code="invalid_token",
            hint="Type or pipe it, or name its file with --token-file.",
        )
    if not token.isascii() or not token.isprintable() or " " in token:
        raise InvalidInput(
            "That is not a token.",
            code="invalid_token",
            hint=_WHENCE,
        )
    return Secret(token)
