"""What lists have in common."""

from __future__ import annotations

from collections.abc import Callable, Sized
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def limit_option(default: int) -> Callable[[F], F]:
    """``--limit``, as every list has it."""
    return click.option(
        "--limit",
        type=click.IntRange(min=0),
        metavar="N",
        default=default,
        show_default=True,
        help="At most; 0 is all.",
    )


def told_if_cut(entries: Sized, limit: int) -> None:
    """Say on standard error that there may be more than was asked for."""
    if limit and len(entries) == limit:
        click.echo(f"Only the first {limit} are shown; --limit 0 shows all.", err=True)
