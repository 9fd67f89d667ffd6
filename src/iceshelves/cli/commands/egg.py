"""``egg``: the commands for authors work without a server; the others look into its library."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from iceshelves.cli.app import App, pass_app
from iceshelves.cli.completion import complete_egg
from iceshelves.cli.eggs import (
    finding_text,
    import_egg,
    in_library,
    local_path,
    named,
    read_local,
)
from iceshelves.cli.listing import told_if_cut
from iceshelves.cli.output import Column, Output, facts, output_options, table, text_of
from iceshelves.cli.problems import ERROR
from iceshelves.cli.text import printable
from iceshelves.cli.values import assignments, mapping_from_file, overrides
from iceshelves.core.errors import Conflict, Failed, InvalidInput

if TYPE_CHECKING:
    from iceshelves.eggs import Egg, Finding

_COLUMNS: Final = (
    Column("NAME", "name"),
    Column("VERSION", "version"),
    Column("CATEGORY", "category"),
    Column("TYPE", "egg_type"),
    Column("DESCRIPTION", "description"),
)
_PATH = click.Path(path_type=Path)


@click.group()
def egg() -> None:
    """Write, check, pack and import eggs.

    EGG is a name of the library (NAME or NAME@VERSION), or a directory or .egg file, with a '/' or '.egg'
    in it.
    """


@egg.command()
@click.argument("path", type=_PATH)
@click.option("--template", metavar="NAME", default=None, help="What to start from; see 'egg templates'.")
@click.option("--field", "fields", multiple=True, metavar="KEY=VALUE", help="A field of metadata.json.")
def new(path: Path, template: str | None, fields: tuple[str, ...]) -> None:
    """Make a working egg at PATH to start from; the egg is called as its directory."""
    from iceshelves.eggs import new_egg, write_directory

    given = assignments(fields, "--field")
    name = path.resolve().name
    made = new_egg(name, template, **given) if template else new_egg(name, **given)
    write_directory(made, path)
    click.echo(f"Made {path}.  Edit it, then: iceshelves egg lint {path}")


@egg.command()
def templates() -> None:
    """List what a new egg can start from."""
    from iceshelves.eggs import templates as names

    for name in names():
        click.echo(name)


@egg.command()
@click.argument("paths", metavar="PATH...", type=_PATH, nargs=-1, required=True)
@click.option("--release", metavar="OS/VERSION", help="Whose cloud-init.  [default: that of the base image]")
@click.option(
    "--repair", is_flag=True, help="Quote the entries of runcmd and bootcmd that YAML takes for mappings."
)
@click.option(
    "--format", "format_", type=click.Choice(["text", "json"]), default="text", help="Form of the output."
)
def lint(paths: tuple[Path, ...], release: str | None, repair: bool, format_: str) -> int:
    """Check eggs and say what is wrong where; the status is 1 if anything is an error.

    Each finding is a line FILE:LINE: level: message (code).  --repair changes cloud-init.yaml, and shows how.
    """
    from iceshelves.eggs import lint as find

    found: list[tuple[Path, Finding]] = []
    for path in paths:
        if repair:
            _repair(path)
        found += [(path, finding) for finding in find(path, release=release)]
    if format_ == "json":
        entries = [{"path": str(path), **finding.to_json()} for path, finding in found]
        click.echo(json.dumps(entries, indent=2, ensure_ascii=False))
    else:
        for path, finding in found:
            click.echo(finding_text(finding, path))
        click.echo(_tally([finding for _, finding in found], len(paths)), err=True)
    return ERROR if any(finding.level == "error" for _, finding in found) else 0


@egg.command()
@click.argument("name", metavar="EGG", shell_complete=complete_egg)
@click.option(
    "-p", "--parameter", "pairs", multiple=True, metavar="KEY=VALUE", help="A parameter of the egg."
)
@click.option(
    "--param-file", metavar="FILE", help="Parameters from a YAML or JSON file; '-' is standard input."
)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a key.")
@click.option("--cloud-config", metavar="FILE", help="Override cloud-init keys from a YAML file.")
@click.option(
    "--instance-name", metavar="NAME", default="preview", show_default=True, help="The instance's name."
)
@click.option("--all", "everything", is_flag=True, help="All that the instance would get, as JSON.")
@pass_app
def render(
    app: App,
    name: str,
    pairs: tuple[str, ...],
    param_file: str | None,
    settings: tuple[str, ...],
    cloud_config: str | None,
    instance_name: str,
    everything: bool,
) -> None:
    """Print the user-data that an instance would get, byte for byte."""
    given = mapping_from_file(param_file, "Parameters") if param_file else {}
    given |= assignments(pairs, "-p")
    wanted = {
        "parameters": given,
        "config_overrides": overrides(settings, cloud_config),
        "instance_name": instance_name,
    }
    path = local_path(name)
    with named(name):
        rendered = (
            _render_here(path, wanted) if path else app.client.post(f"{in_library(name)}/render", wanted)
        )
    if everything:
        click.echo(json.dumps(rendered, indent=2, ensure_ascii=False))
    else:
        click.echo(rendered["user_data"], nl=False)


@egg.command()
@click.argument("former", metavar="EGG", shell_complete=complete_egg)
@click.argument("latter", metavar="EGG", shell_complete=complete_egg)
@pass_app
def diff(app: App, former: str, latter: str) -> int:
    """Print how two eggs differ, file by file; the status is 1 if they do."""
    from iceshelves.eggs import diff as compare

    text = compare(_fetch(app, former), _fetch(app, latter))
    click.echo(printable(text), nl=False)
    return ERROR if text else 0


@egg.command()
@click.argument("path", type=_PATH)
@click.argument("target", type=_PATH, required=False, metavar="[FILE]")
def pack(path: Path, target: Path | None) -> None:
    """Make one file of an egg: NAME-VERSION.egg.  The same egg always gives the same bytes."""
    from iceshelves.eggs import pack as packed

    made = read_local(path)
    file = target or Path(f"{made.name}-{made.version}.egg")
    _write_new(file, packed(made))
    click.echo(f"{file}  {made.digest}")


@egg.command()
@click.argument("name", metavar="EGG", shell_complete=complete_egg)
@click.argument("target", type=_PATH, required=False, metavar="[DIRECTORY]")
@pass_app
def unpack(app: App, name: str, target: Path | None) -> None:
    """Write an egg, from a file or from the library, into a new directory."""
    from iceshelves.eggs import write_directory

    found = _fetch(app, name)
    directory = target or Path(found.name)
    write_directory(found, directory)
    click.echo(f"{directory}  {found.digest}")


@egg.command("import")
@click.argument("paths", metavar="PATH...", type=_PATH, nargs=-1, required=True)
@pass_app
def import_(app: App, paths: tuple[Path, ...]) -> None:
    """Add eggs from the disk to the library.  Versions lie side by side, and each stays as it is."""
    for path in paths:
        click.echo(import_egg(app.client, path))


@egg.command("list")
@click.option("--category", metavar="NAME", help="Only this category.")
@click.option("--search", metavar="TEXT", help="Only those with this in their name or description.")
@click.option("--tag", metavar="TAG", help="Only those with this tag.")
@click.option("--all-versions", is_flag=True, help="Every version, not the latest alone.")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    metavar="N",
    default=100,
    show_default=True,
    help="At most; 0 is all.",
)
@output_options
@pass_app
def list_eggs(
    app: App,
    category: str | None,
    search: str | None,
    tag: str | None,
    all_versions: bool,
    limit: int,
    output: Output,
) -> None:
    """List the eggs of the library."""
    query = {
        "category": category,
        "search": search,
        "tag": tag,
        "versions": "all" if all_versions else None,
    }
    entries = list(app.client.items("/api/eggs", "eggs", limit=limit, **query))
    output.many(entries, _COLUMNS, "No eggs.  Import one: iceshelves egg import DIRECTORY")
    told_if_cut(entries, limit)


@egg.command()
@click.argument("name", metavar="EGG", shell_complete=complete_egg)
@output_options
@pass_app
def show(app: App, name: str, output: Output) -> None:
    """Show an egg, its parameters, and its README."""
    path = local_path(name)
    with named(name):
        found = _described(read_local(path)) if path else app.client.get(in_library(name))
    output.one(found, lambda: _text(found))


@egg.command()
@click.argument("name", metavar="NAME@VERSION", shell_complete=complete_egg)
@pass_app
def delete(app: App, name: str) -> None:
    """Delete one version from the library; refused while a deployment uses it."""
    if "@" not in name:
        raise click.UsageError("Say which version: NAME@VERSION.")
    app.client.delete(in_library(name))
    click.echo(f"Deleted {name}.")


def _fetch(app: App, name: str) -> Egg:
    from iceshelves.eggs import unpack as unpacked

    path = local_path(name)
    if path:
        return read_local(path)
    with named(name):
        return unpacked(app.client.get_bytes(f"{in_library(name)}/archive"))


def _render_here(path: Path, wanted: Mapping[str, Any]) -> dict[str, Any]:
    from iceshelves.eggs import render as rendered_here
    from iceshelves.eggs import resolve_parameters

    found = read_local(path)
    parameters = resolve_parameters(found, wanted["parameters"])
    rendered = rendered_here(
        found, parameters, wanted["config_overrides"], instance_name=wanted["instance_name"]
    )
    return {
        "user_data": rendered.user_data,
        "instance_config": {**rendered.limits, **rendered.instance_config},
        "root_size": rendered.root_size,
        "base_image": rendered.base_image,
    }


def _repair(path: Path) -> None:
    """Quote what needs quotes in ``path``'s user-data and show the change; nothing else is touched."""
    import difflib

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


def _tally(findings: list[Finding], eggs: int) -> str:
    counts = [
        f"{count} {level}{'' if count == 1 else 's'}"
        for level in ("error", "warning", "hint")
        if (count := sum(finding.level == level for finding in findings))
    ]
    checked = "1 egg" if eggs == 1 else f"{eggs} eggs"
    return f"{checked}: {', '.join(counts) or 'nothing to complain about'}."


def _write_new(file: Path, content: bytes) -> None:
    try:
        with file.open("xb") as stream:
            stream.write(content)
    except FileExistsError as error:
        raise Conflict(f"{file} exists already.", code="path_exists", hint="Choose another name.") from error
    except OSError as error:
        raise Failed(f"{file} cannot be written: {error.strerror}.", code="path_unwritable") from error


def _described(found: Egg) -> dict[str, Any]:
    """A local egg in the words of the API."""
    import dataclasses

    metadata = found.metadata
    return {
        "name": found.name,
        "display_name": metadata.display_name,
        "version": str(found.version),
        "description": metadata.description,
        "category": metadata.category,
        "egg_type": metadata.egg_type,
        "base_image": metadata.base_image,
        "tags": list(metadata.tags),
        "digest": found.digest,
        "parameters": [dataclasses.asdict(parameter) for parameter in metadata.parameters],
        "files": {"readme": found.readme.decode(errors="replace") if found.readme else None},
    }


def _text(found: Mapping[str, Any]) -> str:
    parts = [
        facts(
            [
                ("Name", found["name"]),
                ("Version", found["version"]),
                ("Versions", [_version(each) for each in found.get("versions") or []]),
                ("Description", found.get("description")),
                ("Category", found.get("category")),
                ("Type", found.get("egg_type")),
                ("Image", found.get("base_image")),
                ("Tags", found.get("tags")),
                ("Digest", found.get("digest")),
            ]
        )
    ]
    if found.get("parameters"):
        parts += ["", _parameters(found["parameters"])]
    readme = (found.get("files") or {}).get("readme")
    if readme:
        parts += ["", printable(str(readme)).rstrip()]
    return "\n".join(parts)


def _version(entry: object) -> str:
    return str(entry.get("version")) if isinstance(entry, dict) else str(entry)


def _parameters(parameters: list[dict[str, Any]]) -> str:
    rows = [
        [
            parameter["name"],
            str(parameter.get("type") or "string"),
            "required" if parameter.get("required") else text_of(parameter.get("default")),
            text_of(parameter.get("description")),
        ]
        for parameter in parameters
    ]
    return table(["PARAMETER", "TYPE", "DEFAULT", "DESCRIPTION"], rows)
