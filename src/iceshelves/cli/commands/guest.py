"""``exec`` and ``shell``."""

from __future__ import annotations

import sys
from typing import Final

import click

from iceshelves.cli.address import deployment_id
from iceshelves.cli.app import App, pass_app
from iceshelves.cli.completion import complete_deployment
from iceshelves.cli.terminal import Command, run
from iceshelves.cli.values import assignments
from iceshelves.core.errors import InvalidInput

#: the best shell that the guest has, as a log-in shell
_SHELL: Final = ("/bin/sh", "-c", 'exec "$(command -v bash || echo /bin/sh)" -l')

_ID = click.IntRange(min=0, max=2**31 - 1)
_USER = click.option(
    "--user", type=_ID, default=0, metavar="UID", help="Run as this user.  [default: 0, root]"
)
_GROUP = click.option("--group", type=_ID, default=0, metavar="GID", help="Run as this group.  [default: 0]")


@click.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("address", metavar="CLUSTER:NAME", shell_complete=complete_deployment)
@_USER
@_GROUP
@click.option("--cwd", metavar="DIR", help="Run in this directory of the guest.")
@click.option("--env", "pairs", multiple=True, metavar="KEY=VALUE", help="An environment variable.")
@click.option(
    "-n", "--no-stdin", is_flag=True, help="Leave standard input alone, as in a loop that reads it."
)
@click.option(
    "-t/-T", "--terminal/--no-terminal", default=None, help="Give it a terminal.  [default: if we are on one]"
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND...")
@pass_app
def exec_(
    app: App,
    address: str,
    user: int,
    group: int,
    cwd: str | None,
    pairs: tuple[str, ...],
    no_stdin: bool,
    terminal: bool | None,
    command: tuple[str, ...],
) -> int:
    """Run a command in an instance; its exit status is passed on.

    Options stand before CLUSTER:NAME; everything behind it is the command's.
    """
    argv = command[1:] if command[0] == "--" else command
    if not argv:
        raise click.UsageError("There is no command to run.")
    wanted = Command(
        argv,
        assignments(pairs, "--env"),
        user,
        group,
        cwd,
        _on_terminal() and not no_stdin if terminal is None else terminal,
        not no_stdin,
    )
    return run(app.server(), deployment_id(app.client, address), wanted)


@click.command()
@click.argument("address", metavar="CLUSTER:NAME", shell_complete=complete_deployment)
@_USER
@_GROUP
@pass_app
def shell(app: App, address: str, user: int, group: int) -> int:
    """Open a shell in an instance."""
    if not _on_terminal():
        raise InvalidInput(
            "A shell needs a terminal.",
            code="no_terminal",
            hint=f"For a script: iceshelves exec {address} -- sh -c '…'",
        )
    wanted = Command(_SHELL, user=user, group=group, terminal=True)
    return run(app.server(), deployment_id(app.client, address), wanted)


def _on_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()
