"""How failures are told: what happened, what to do about it, where to read on.  And the exit statuses."""

from __future__ import annotations

from typing import Final

import click

from iceshelves.cli.text import printable
from iceshelves.core.errors import IceShelvesError

#: It failed: the command, or the deployment that it waited for.  Usage errors are 2, as click has them.
ERROR: Final = 1
#: Ctrl-C, or the operation that was waited for was cancelled by somebody.
INTERRUPTED: Final = 130


def report(error: IceShelvesError) -> None:
    """Print ``error`` to standard error."""
    click.echo(f"{click.style('Error:', fg='red', bold=True)} {printable(error.message)}", err=True)
    for line in _wrong_fields(error):
        click.echo(f"       {printable(line)}", err=True)
    if error.hint:
        click.echo(f"{click.style('Hint:', bold=True)}  {printable(error.hint)}", err=True)
    click.echo(f"See:   {error.docs} ({error.code})", err=True)


def _wrong_fields(error: IceShelvesError) -> list[str]:
    """What is wrong with each field of a request, where the message has room for the first one only."""
    fields = error.details.get("fields")
    if not isinstance(fields, list) or len(fields) < 2:
        return []
    return [f"{entry.get('field')}: {entry.get('message')}" for entry in fields if isinstance(entry, dict)]
