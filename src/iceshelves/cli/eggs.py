"""Eggs as a user names them: in the library, or on the own disk."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from iceshelves.cli.client import Client, segment
from iceshelves.cli.text import printable
from iceshelves.core.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from iceshelves.eggs import Egg, Finding


def local_path(text: str) -> Path | None:
    """The path that ``text`` means, or ``None`` where it is a name of the library."""
    return Path(text) if "/" in text or text in (".", "..") or text.endswith(".egg") else None


def read_local(path: Path) -> Egg:
    """The egg at ``path``.  Raises :class:`NotFound` or :class:`InvalidInput`."""
    from iceshelves.eggs import load

    return load(path)


def egg_in_library(client: Client, text: str) -> str:
    """``NAME[@VERSION]`` of the egg that ``text`` means; one on the disk is imported first, which is told."""
    path = local_path(text)
    return text if path is None else import_egg(client, path)


def import_egg(client: Client, path: Path) -> str:
    """Import the egg at ``path`` and say so; ``NAME@VERSION``.

    Raises :class:`InvalidInput` when it has findings that would keep it from working.
    """
    from iceshelves.eggs import lint, pack

    egg = read_local(path)
    findings = lint(egg)
    errors = [finding for finding in findings if finding.level == "error"]
    if errors:
        for finding in errors:
            click.echo(finding_text(finding, path), err=True)
        raise InvalidInput(
            f"{path} was not imported: it has {len(errors)} error{'s' if len(errors) > 1 else ''}.",
            code="egg_has_errors",
            hint=f"See all findings with 'iceshelves egg lint {path}'.",
        )
    answer = client.post_bytes("/api/eggs/import", pack(egg))
    click.echo(
        f"Imported {path} as {answer['name']} {answer['version']} ({answer['digest'][:19]}).", err=True
    )
    return f"{answer['name']}@{answer['version']}"


def fetch(client: Client, text: str) -> Egg:
    """The egg that ``text`` means, wherever it is."""
    from iceshelves.eggs import unpack

    path = local_path(text)
    if path:
        return read_local(path)
    with named(text):
        return unpack(client.get_bytes(f"{in_library(text)}/archive"))


def finding_text(finding: Finding, path: Path) -> str:
    """One finding; its file is told as seen from here."""
    place = f"{path / finding.file if path.is_dir() else f'{path}:{finding.file}'}:{finding.line}"
    colour = {"error": "red", "warning": "yellow"}.get(finding.level)
    level = click.style(f"{finding.level}:", fg=colour, bold=True)
    text = f"{printable(place)}: {level} {printable(finding.message)} ({finding.code})"
    return f"{text}\n    {printable(finding.hint)}" if finding.hint else text


def in_library(name: str) -> str:
    """The path of the egg ``NAME[@VERSION]`` in the API."""
    return f"/api/eggs/{segment(name)}"


@contextlib.contextmanager
def named(text: str) -> Iterator[None]:
    """Around a call that names an egg: a directory written as a name, the usual slip, gets its hint."""
    try:
        yield
    except NotFound as error:
        if error.code == "egg_not_found" and Path(text).is_dir():
            error.hint = f"If you mean the directory, write ./{text}"
        raise
