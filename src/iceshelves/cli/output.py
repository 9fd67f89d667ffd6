"""What a command read, in the form asked for: a table for people, or JSON, YAML or CSV for programs."""

from __future__ import annotations

import functools
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, ParamSpec, TypeVar

import click

from iceshelves.cli.text import one_line, printable, shorten, width

FORMATS: Final = ("table", "json", "yaml", "csv")
_NARROWEST: Final = 8  # columns are not shortened below this
_KEPT: Final = frozenset({"ID", "NAME", "INSTANCE", "PARAMETER"})  # shortened last
_P = ParamSpec("_P")
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its heading, and the value (a dotted path, or a function) in each object."""

    title: str
    value: str | Callable[[Mapping[str, Any]], object]

    def of(self, entry: Mapping[str, Any]) -> object:
        """The value for ``entry``."""
        return pick(entry, self.value) if isinstance(self.value, str) else self.value(entry)


@dataclass(frozen=True, slots=True)
class Output:
    """Where and how to print; ``fields`` are those of ``--json``."""

    format: str = "table"
    fields: tuple[str, ...] = ()

    @property
    def is_for_people(self) -> bool:
        """Whether nobody asked for a format."""
        return self.format == "table"

    def many(self, entries: Sequence[Mapping[str, Any]], columns: Sequence[Column], empty: str) -> None:
        """Print a list; ``empty`` is what to tell people when there is nothing in it."""
        if self.format == "csv":
            _csv([column.title.lower() for column in columns], [_row(entry, columns) for entry in entries])
        elif self.format == "table":
            if entries:
                click.echo(table([column.title for column in columns], [_row(e, columns) for e in entries]))
            else:
                click.echo(empty, err=True)
        else:
            self._structured([self._selected(entry) for entry in entries])

    def one(self, entry: Mapping[str, Any], for_people: Callable[[], str]) -> None:
        """Print one object; ``for_people`` gives its text."""
        if self.format == "csv":
            _csv(["field", "value"], [[name, text_of(value)] for name, value in entry.items()])
        elif self.format == "table":
            click.echo(for_people())
        else:
            self._structured(self._selected(entry))

    def _selected(self, entry: Mapping[str, Any]) -> Mapping[str, Any]:
        if not self.fields:
            return entry
        for name in self.fields:
            if name.split(".")[0] not in entry:
                raise click.UsageError(f"There is no field {name!r}. There are: {', '.join(sorted(entry))}.")
        return {name: pick(entry, name) for name in self.fields}

    def _structured(self, value: object) -> None:
        if self.format == "json":
            import json

            click.echo(json.dumps(value, indent=2, ensure_ascii=False))
        else:
            import yaml

            click.echo(yaml.safe_dump(value, sort_keys=False, allow_unicode=True), nl=False)


def output_options(command: Callable[_P, _R]) -> Callable[..., _R]:
    """Add ``--format`` and ``--json`` to a command, which gets them as ``output``."""

    @click.option(
        "--format", "format_", type=click.Choice(FORMATS), default="table", help="Form of the output."
    )
    @click.option(
        "--json", "fields", metavar="FIELDS", help="Print these fields as JSON, such as id,cluster.name."
    )
    @functools.wraps(command)
    def wrapped(*args: Any, format_: str, fields: str | None, **kwargs: Any) -> _R:
        names = tuple(name.strip() for name in fields.split(",") if name.strip()) if fields else ()
        if fields is not None and not names:
            raise click.UsageError("--json needs the names of fields.")
        if names and format_ not in ("table", "json"):
            raise click.UsageError(f"--json does not go with --format {format_}.")
        output = Output("json" if names else format_, names)
        return command(*args, output=output, **kwargs)  # type: ignore[arg-type]  # the added argument

    return wrapped


def pick(entry: Any, path: str) -> Any:
    """The value at the dotted ``path`` in nested mappings, or ``None``."""
    for name in path.split("."):
        if not isinstance(entry, Mapping):
            return None
        entry = entry.get(name)
    return entry


def text_of(value: object) -> str:
    """``value`` as a cell shows it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={text_of(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(text_of(inner) for inner in value)
    return str(value)


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows under headings, as wide as the terminal at most; not shortened where nobody looks."""
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    cells = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(width(line[index]) for line in [titles, *cells]) for index in range(len(titles))]
    if room is not None:
        kept = [title in _KEPT for title in titles]
        widths = _fitted(widths, kept, room - 2 * (len(titles) - 1))
    heading = click.style(_line(titles, widths), bold=True)
    return "\n".join([heading, *(_line(row, widths) for row in cells)])


def facts(pairs: Sequence[tuple[str, object]]) -> str:
    """Names and values, one a line; what has no value is left out."""
    shown = [(name, printable(text_of(value))) for name, value in pairs if value not in (None, "", [], {})]
    indent = max((len(name) for name, _ in shown), default=0) + 2
    return "\n".join(
        f"{click.style(name.ljust(indent), bold=True)}{value.replace(chr(10), chr(10) + ' ' * indent)}"
        for name, value in shown
    )


def _row(entry: Mapping[str, Any], columns: Sequence[Column]) -> list[str]:
    return [text_of(column.of(entry)) for column in columns]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    shown = [shorten(cell, room) for cell, room in zip(cells, widths, strict=True)]
    padded = [cell + " " * (room - width(cell)) for cell, room in zip(shown, widths, strict=True)]
    return "  ".join(padded).rstrip()


def _fitted(widths: list[int], kept: list[bool], room: int) -> list[int]:
    """``widths`` with the widest made narrower, one step at a time, until all fit into ``room``.

    Columns that are ``kept`` are left alone while others can give: what they show is typed into commands.
    """
    fitted = list(widths)
    for movable in ([not keep for keep in kept], [True] * len(fitted)):
        while sum(fitted) > room:
            widest = max((w for w, may in zip(fitted, movable, strict=True) if may), default=0)
            if widest <= _NARROWEST:
                break
            fitted[next(i for i, w in enumerate(fitted) if movable[i] and w == widest)] -= 1
    return fitted


def _csv(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    import csv
    import io

    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(titles)
    writer.writerows([_harmless(cell) for cell in row] for row in rows)
    click.echo(buffer.getvalue(), nl=False)


def _harmless(cell: str) -> str:
    """A cell that a spreadsheet does not take for a formula (CWE-1236)."""
    return f"'{cell}" if cell[:1] in ("=", "+", "-", "@", "\t", "\r") and not _is_number(cell) else cell


def _is_number(cell: str) -> bool:
    return cell.lstrip("+-").replace(".", "", 1).isdigit()
