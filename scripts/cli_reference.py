#!/usr/bin/env python3
"""Write docs/reference/cli.md from the commands themselves, so that it cannot say anything else than they do.

Usage: scripts/cli_reference.py [--check]
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from iceshelves.cli.main import PROGRAM, SECTIONS

PAGE: Final = Path(__file__).parent.parent / "docs" / "reference" / "cli.md"

INTRODUCTION: Final = """\
# Command line

<!-- Made by scripts/cli_reference.py from the commands themselves; change those, then run it. -->

`iceshelves` talks to a server through the public API and to nothing else. The commands for authors of
eggs (`egg new`, `lint`, `render`, `diff`, `pack`, `unpack`, `show`) also work on directories and `.egg`
files without a server, those for authors of appliances (`appliance new`, `lint`, `import`) on folders, and
those of a registry (`image`) on one that is a folder, with `--tree`; `serve` and `admin-token` are the
server's own.

## Addresses

| you write | it means |
|---|---|
| `local:web` | the instance `web` on the cluster `local` |
| `web` | the same, where no other cluster has a `web`; for a new instance, where there is one cluster only |
| `7` | the deployment with this number |
| `hello-web`, `hello-web@1.0.0` | an egg of the library, the latest version or this one |
| `./hello-web`, `hello-web.egg` | an egg on your disk: anything with a `/` in it, or with `.egg` at its end |
| `nginx`, `./nginx` | a recipe in this folder; `nginx` is built in where no folder here is called so |

## Output

Commands that read take `--format table`, `json`, `yaml` or `csv`, and `--json FIELDS` for some fields
only, such as `--json id,cluster.name`. What was asked for goes to standard output; progress, warnings
and errors go to standard error. Progress is drawn live on a terminal and is one plain line for each
change of a step elsewhere. `NO_COLOR` turns colours off. Text from guests is shown without its control
characters.

An error reads

    Error: what happened
    Hint:  what to do about it
    See:   where the documentation explains it (code)

## Exit status

| status | meaning |
|---|---|
| 0 | it worked; what was waited for succeeded |
| 1 | an error; what was waited for failed or took too long; `lint`, `verify`: errors; `egg diff`: a diff |
| 2 | the command line is wrong |
| 130 | what was waited for was cancelled, or you stopped waiting with Ctrl-C |
| any | `exec` and `shell`: the status of the command in the guest |

While a command waits, Ctrl-C cancels the work on the server and goes on waiting for its end. Ctrl-C
again does not wait for that: `iceshelves operation watch ID` comes back to it, and `--no-wait` never waits. A
lost connection is resumed where it was; the server may be restarted meanwhile. Every change carries an
idempotency key, so that one whose answer was lost is sent again without being done twice.

## Settings

| variable | meaning |
|---|---|
| `ICESHELVES_SERVER`, `ICESHELVES_TOKEN` | server and token to use instead of the current context's |
| `XDG_CONFIG_HOME` | contexts are in `iceshelves/contexts.json` below it (default `~/.config`) |
| `SSL_CERT_FILE` | the authorities that are trusted, where the system's are not right |
| `ICESHELVES_DATA`, `ICESHELVES_DATABASE_URL`, … | of the server: `serve` and `admin-token` |
"""


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for title, entries in SECTIONS.items():
        parts.append(f"## {title}\n")
        for name in entries:
            parts += _command(entries[name].load(), [name])
    return "\n".join(parts)


def _command(command: click.Command, path: list[str]) -> Iterator[str]:
    context = click.Context(command, info_name=" ".join([PROGRAM, *path]))
    yield f"### {' '.join(path)}\n"
    yield f"    {context.command_path} {' '.join(command.collect_usage_pieces(context))}\n"
    yield _prose(command.help or "") + "\n"
    options = [each for each in command.params if isinstance(each, click.Option) and not each.hidden]
    if options:
        yield "| option | |\n|---|---|"
        yield "\n".join(_row(option, context) for option in options) + "\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None:
                yield from _command(inner, [*path, name])


def _row(option: click.Option, context: click.Context) -> str:
    record = option.get_help_record(context)
    names, text = record or ("", "")
    return "| `{}` | {} |".format(*(part.replace("|", r"\|") for part in (names, text)))


def _prose(text: str) -> str:
    """A command's help as Markdown: a paragraph after ``\\b`` is kept as it is."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(
        "\n".join(f"    {line}" for line in paragraph.splitlines()[1:])
        if paragraph.startswith("\b")
        else paragraph
        for paragraph in paragraphs
    )


def main() -> int:
    """Write the page, or with ``--check`` say whether it is current."""
    wanted = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(wanted)
        return 0
    current = PAGE.exists() and PAGE.read_text() == wanted
    if not current:
        click.echo("docs/reference/cli.md is out of date: run scripts/cli_reference.py", err=True)
    return 0 if current else 1


if __name__ == "__main__":
    sys.exit(main())
