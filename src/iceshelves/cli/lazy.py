"""Commands that are imported when they run, so that ``--help`` and each command pay only for themselves."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click


@dataclass(frozen=True, slots=True)
class Lazy:
    """Where a command is (``module:attribute``) and what its help says in one line."""

    target: str
    summary: str

    def load(self) -> click.Command:
        """Import the command."""
        module, _, attribute = self.target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{self.target} is not a command")
        return command


class LazyGroup(click.Group):
    """A group that lists its commands, under headings, from ``sections`` alone."""

    def __init__(
        self, *args: Any, sections: Mapping[str, Mapping[str, Lazy]] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.sections = sections or {}
        self._lazies = {name: lazy for entries in self.sections.values() for name, lazy in entries.items()}
        # stand-ins, for click's own "did you mean"
        self.commands.update({name: click.Command(name) for name in self._lazies})

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The names, in the order of the sections."""
        return list(self._lazies)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's
        """The command itself, imported now."""
        lazy = self._lazies.get(cmd_name)
        return lazy.load() if lazy else None

    def summaries(self) -> dict[str, str]:
        """The one-line help of each command, without importing any."""
        return {name: lazy.summary for name, lazy in self._lazies.items()}

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the commands under their headings."""
        width = max(len(name) for name in self._lazies)
        for title, entries in self.sections.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), lazy.summary) for name, lazy in entries.items()])
