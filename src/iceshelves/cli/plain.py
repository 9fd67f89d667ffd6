"""Progress where nobody watches: one line on standard error for each change of a step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click

from iceshelves.cli.steps import duration, title
from iceshelves.cli.text import one_line, printable

_TOLD: Final = frozenset({"running", "done", "failed", "cancelled"})


class PlainView:
    """Prints steps as they begin and end, and the log lines that matter; ``verbose`` all log lines."""

    def __init__(self, *, verbose: bool) -> None:
        self._verbose = verbose
        self._told: dict[int, tuple[str, int]] = {}

    def operation(self, operation: Mapping[str, Any]) -> None:
        """Print the steps that changed."""
        for index, step in enumerate(operation.get("steps", [])):
            state = (str(step["status"]), int(step.get("attempts") or 0))
            if state[0] in _TOLD and self._told.get(index) != state:
                self._told[index] = state
                click.echo(_sentence(step), err=True)

    def log(self, line: Mapping[str, Any]) -> None:
        """Print a warning; anything else only if asked to: an error is told at the end."""
        if self._verbose or line.get("level") == "WARNING":
            click.echo(f"  {line.get('step') or ''}: {printable(str(line['message']))}", err=True)

    def note(self, text: str) -> None:
        """Print it."""
        click.echo(text, err=True)

    def close(self) -> None:
        """Nothing is left to do."""


def _sentence(step: Mapping[str, Any]) -> str:
    told = [title(step) + ":", str(step["status"])]
    if step["status"] != "running":
        told.append(f"({duration(step)})")
    elif int(step.get("attempts") or 0) > 1:
        told.append(f"(attempt {step['attempts']})")
    message = one_line(str(step.get("message") or "")) if step["status"] != "failed" else ""
    return " ".join(told) + (f" {message}" if message else "")
