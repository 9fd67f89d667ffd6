"""``egg show``, ``render`` and ``diff``: what an egg is, and what an instance would get of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from iceshelves.cli.app import App, pass_app
from iceshelves.cli.completion import complete_egg
from iceshelves.cli.eggs import fetch, in_library, local_path, named, read_local
from iceshelves.cli.output import Output, facts, output_options, table, text_of
from iceshelves.cli.problems import ERROR
from iceshelves.cli.text import printable
from iceshelves.cli.values import assignments, mapping_from_file, overrides

if TYPE_CHECKING:
    from iceshelves.eggs import Egg


@click.command()
@click.argument("name", metavar="EGG", shell_complete=complete_egg)
@output_options
@pass_app
def show(app: App, name: str, output: Output) -> None:
    """Show an egg, its parameters, and its README."""
    path = local_path(name)
    with named(None if path else app.client, name):
        found = _described(read_local(path)) if path else app.client.get(in_library(name))
    output.one(found, lambda: _text(found))


@click.command()
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
    with named(None if path else app.client, name):
        rendered = (
            _render_here(path, wanted) if path else app.client.post(f"{in_library(name)}/render", wanted)
        )
    if everything:
        click.echo(json.dumps(rendered, indent=2, ensure_ascii=False))
    else:
        click.echo(rendered["user_data"], nl=False)


@click.command()
@click.argument("former", metavar="EGG", shell_complete=complete_egg)
@click.argument("latter", metavar="EGG", shell_complete=complete_egg)
@pass_app
def diff(app: App, former: str, latter: str) -> int:
    """Print how two eggs differ, file by file.

    The status is 1 if they do.
    """
    from iceshelves.eggs import diff as compare

    text = compare(fetch(app.client, former), fetch(app.client, latter))
    click.echo(printable(text), nl=False)
    return ERROR if text else 0


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


def _described(found: Egg) -> dict[str, Any]:
    """A local egg in the words of the API."""
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
