"""``egg new``, ``lint``, ``pack`` and their like: for authors, and without a server."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from iceshelves.cli.app import App, pass_app
from iceshelves.cli.completion import complete_egg
from iceshelves.cli.eggs import fetch, read_local
from iceshelves.cli.findings import tell_findings
from iceshelves.cli.text import printable
from iceshelves.cli.values import assignments
from iceshelves.core.errors import Conflict, Failed, InvalidInput

if TYPE_CHECKING:
    from iceshelves.core.finding import Finding

_PATH: Final = click.Path(path_type=Path)


@click.command()
@click.argument("path", type=_PATH)
@click.option("--template", metavar="NAME", default=None, help="What to start from; see 'egg templates'.")
@click.option("--field", "fields", multiple=True, metavar="KEY=VALUE", help="A field of metadata.json.")
def new(path: Path, template: str | None, fields: tuple[str, ...]) -> None:
    """Make a working egg to start from.

    It is called as its directory, PATH.
    """
    from iceshelves.eggs import new_egg, write_directory

    given = assignments(fields, "--field")
    name = path.resolve().name
    made = new_egg(name, template, **given) if template else new_egg(name, **given)
    write_directory(made, path)
    click.echo(f"Made {path}.  Edit it, then: iceshelves egg lint {path}")


@click.command()
def templates() -> None:
    """List what a new egg can start from."""
    from iceshelves.eggs import templates as names

    for name in names():
        click.echo(name)


@click.command()
@click.argument("paths", metavar="PATH...", type=_PATH, nargs=-1, required=True)
@click.option("--release", metavar="OS/VERSION", help="Whose cloud-init.  [default: that of the base image]")
@click.option(
    "--repair", is_flag=True, help="Quote the entries of runcmd and bootcmd that YAML takes for mappings."
)
@click.option(
    "--format", "format_", type=click.Choice(["text", "json"]), default="text", help="Form of the output."
)
def lint(paths: tuple[Path, ...], release: str | None, repair: bool, format_: str) -> int:
    """Check eggs and say what is wrong where.

    Each finding is a line FILE:LINE: level: message (code), and the status is 1 if any is an error.
    --repair changes cloud-init.yaml, and shows how.
    """
    from iceshelves.eggs import lint as find

    found: list[tuple[Path, Finding]] = []
    for path in paths:
        if repair:
            _repair(path)
        found += [(path, finding) for finding in find(path, release=release)]
    return tell_findings(found, format_, "1 egg" if len(paths) == 1 else f"{len(paths)} eggs")


@click.command()
@click.argument("path", type=_PATH)
@click.argument("target", type=_PATH, required=False, metavar="[FILE]")
def pack(path: Path, target: Path | None) -> None:
    """Make one file of an egg.

    It is called NAME-VERSION.egg unless you say otherwise.  The same egg always gives the same bytes.
    """
    from iceshelves.eggs import pack as packed

    made = read_local(path)
    file = target or Path(f"{made.name}-{made.version}.egg")
    _write_new(file, packed(made))
    click.echo(f"{file}  {made.digest}")


@click.command()
@click.argument("name", metavar="EGG", shell_complete=complete_egg)
@click.argument("target", type=_PATH, required=False, metavar="[DIRECTORY]")
@pass_app
def unpack(app: App, name: str, target: Path | None) -> None:
    """Write an egg, from a file or from the library, into a new directory."""
    from iceshelves.eggs import write_directory

    found = fetch(app.client, name)
    directory = target or Path(found.name)
    write_directory(found, directory)
    click.echo(f"{directory}  {found.digest}")


def _repair(path: Path) -> None:
    """Quote what needs quotes in ``path``'s user-data and show the change; nothing else is touched."""
    from iceshelves.eggs import repair_quotes

    file = path / "cloud-init.yaml"
    if not path.is_dir():
        raise InvalidInput(
            f"{path} cannot be repaired: it is not a directory.",
            code="not_a_directory",
            hint=f"First: iceshelves egg unpack {path}",
        )
    try:
        before = read_local(path).user_data
        after = repair_quotes(before)
    except InvalidInput:
        return  # a template, or broken in another way: what lint is about to say, and not for us to guess
    if after == before:
        return
    file.write_bytes(after)
    lines = difflib.unified_diff(
        before.decode().splitlines(keepends=True),
        after.decode().splitlines(keepends=True),
        str(file),
        str(file),
    )
    click.echo(printable("".join(lines)), nl=False, err=True)


def _write_new(file: Path, content: bytes) -> None:
    try:
        with file.open("xb") as stream:
            stream.write(content)
    except FileExistsError as error:
        raise Conflict(f"{file} exists already.", code="path_exists", hint="Choose another name.") from error
    except OSError as error:
        raise Failed(f"{file} cannot be written: {error.strerror}.", code="path_unwritable") from error
