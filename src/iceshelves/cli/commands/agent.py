"""``agent``: the program beside a hypervisor, not a client of the API as the other commands are."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import IO, Final

import click

from iceshelves.core.errors import InvalidInput

_STATE: Final = "/var/lib/iceshelves-agent"
_MOST: Final = 1024


@click.command()
@click.option("--server", metavar="URL", help="The server's address, to enrol: https://host/iceshelves")
@click.option(
    "--enroll",
    type=click.File("r"),
    help="Enrol first, with the one-time token in this file; '-' is standard input.",
)
@click.option(
    "--state",
    type=click.Path(file_okay=False, resolve_path=True, path_type=Path),
    default=_STATE,
    show_default=True,
    help="Folder of the agent's key and records.",
)
@click.option(
    "--socket", default="", metavar="PATH", help="The hypervisor's socket.  [default: the usual one]"
)
@click.option(
    "--server-certificate",
    type=click.Path(exists=True, dir_okay=False, resolve_path=True),
    help="PEM file of the certificate, or authority, that the server has to show.",
)
@click.option("--install", is_flag=True, help="Have systemd run it from now on, instead of running here.")
def agent(
    server: str | None,
    enroll: IO[str] | None,
    state: Path,
    socket: str,
    server_certificate: str | None,
    install: bool,
) -> None:
    """Serve a cluster from beside its hypervisor.

    The agent polls the server, so that nothing has to reach the hypervisor from outside.  The line to paste
    here is printed by 'iceshelves cluster enroll NAME', on a machine that is logged in to the server.
    """
    from iceshelves.agent import program, unit

    if enroll is not None:
        if server is None:
            raise InvalidInput(
                "The server's address is missing.",
                code="server_missing",
                hint="Give it with --server https://host/iceshelves.",
            )
        token = enroll.readline(_MOST).strip()
        identity = asyncio.run(program.enrol(server, token, state, socket, server_certificate or ""))
        click.echo(f"This is the agent of {identity.cluster} now.", err=True)
    if install:
        click.echo(f"Started by {unit.install(state)}.  Its log: journalctl -u {unit.NAME}", err=True)
        return
    program.run(state, os.environ.get("LOG_LEVEL", "INFO").upper())
