"""``serve`` and ``admin-token``: the commands that are not a client, but the server's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from iceshelves.core.errors import InvalidInput
from iceshelves.core.settings import Settings

if TYPE_CHECKING:
    from iceshelves.server.tls import Tls

_DATA = click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the database and keys.  [default: $ICESHELVES_DATA, or /var/lib/iceshelves for root]",
)


Command = TypeVar("Command", bound=Callable[..., Any])


def tls_options(command: Command) -> Command:
    """The files of a certificate and its key."""
    file = click.Path(exists=True, dir_okay=False, path_type=Path)
    command = click.option("--tls-key", type=file, help="The key of that certificate, in PEM.")(command)
    return click.option(
        "--tls-certificate", type=file, help="Serve HTTPS with this certificate, in PEM, and its chain."
    )(command)


def given_tls(certificate: Path | None, key: Path | None) -> Tls | None:
    """The certificate that was given, if it can be used.  Raises :class:`InvalidInput`."""
    from iceshelves.server.tls import Tls, checked

    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise InvalidInput(
            "A certificate and its key are given together.",
            code="invalid_certificate",
            hint="Give both: --tls-certificate FILE --tls-key FILE",
        )
    return checked(Tls(certificate, key))


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
@click.option(
    "--tls",
    is_flag=True,
    help="Serve HTTPS with a certificate of its own, made at the first start and kept in the data folder.",
)
@tls_options
def serve(
    listen: tuple[str, int],
    data: Path | None,
    admin_token_file: Path | None,
    tls: bool,
    tls_certificate: Path | None,
    tls_key: Path | None,
) -> None:
    """Run the server.

    Everything is kept in one folder; nothing else has to be installed or configured.  At the first start an
    administrator's token is made and shown once, with the command to log in.
    """
    from iceshelves.server.serve import Listening
    from iceshelves.server.serve import serve as run_server

    given = given_tls(tls_certificate, tls_key)
    where = Listening(*listen, given or ("own" if tls else None))
    run_server(Settings.from_environment(data=data), where, admin_token_file)


@click.command()
@_DATA
def admin_token(data: Path | None) -> None:
    """Renew the administrator's token.

    For whoever can read the server's database.  The former tokens of the administrator end; the new one is
    printed.
    """
    from iceshelves.server.serve import renew_admin_token

    click.echo(renew_admin_token(Settings.from_environment(data=data)).reveal())
