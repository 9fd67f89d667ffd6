"""What lists have in common."""

from __future__ import annotations

from collections.abc import Sized

import click


def told_if_cut(entries: Sized, limit: int) -> None:
    """Say on standard error that there may be more than was asked for."""
    if limit and len(entries) == limit:
        click.echo(f"Only the first {limit} are shown; --limit 0 shows all.", err=True)
