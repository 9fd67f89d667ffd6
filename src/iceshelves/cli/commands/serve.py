"""``serve`` and ``admin-token``: the commands that are not a client, but the server's own."""

from __future__ import annotations

from pathlib import Path

import click

from iceshelves.core.settings import Settings

_DATA = click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the database and keys.  [default: $ICESHELVES_DATA, or /var/lib/iceshelves for root]",
)


class Address(click.ParamType[tuple[str, int]]):
    """``HOST:PORT``; an IPv6 address stands in brackets."""

    name = "host:port"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        """Read it, or fail as click does."""
        if isinstance(value, tuple):
            return value
        host, _, port = str(value).rpartition(":")
        if not host or not port.isdecimal() or int(port) > 65535:
            self.fail(f"{value!r} is not HOST:PORT.", param, ctx)
        return host.removeprefix("[").removesuffix("]"), int(port)


@click.command()
@click.option(
    "--listen", type=Address(), default="127.0.0.1:8000", show_default=True, help="Where to listen."
)
@_DATA
@click.option(
    "--admin-token-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the first start's token into this file (0600) instead of showing it.",
)
def serve(listen: tuple[str, int], data: Path | None, admin_token_file: Path | None) -> None:
    """Run the server.

    Everything is kept in one folder; nothing else has to be installed or configured.  At the first start an
    administrator's token is made and shown once, with the command to log in.
    """
    from iceshelves.server.serve import serve as run_server

    run_server(Settings.from_environment(data=data), *listen, admin_token_file)


@click.command()
@_DATA
def admin_token(data: Path | None) -> None:
    """Renew the administrator's token.

    For whoever can read the server's database.  The former tokens of the administrator end; the new one is
    printed.
    """
    from iceshelves.server.serve import renew_admin_token

    click.echo(renew_admin_token(Settings.from_environment(data=data)).reveal())
