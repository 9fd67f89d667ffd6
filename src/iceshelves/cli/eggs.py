"""Eggs as a user names them: in the library, or on the own disk."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from iceshelves.cli.client import Client, segment
from iceshelves.cli.findings import finding_text
from iceshelves.cli.suggest import did_you_mean
from iceshelves.core.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from iceshelves.eggs import Egg


_LOOKED_THROUGH: Final = 1000  # eggs, for one that is spelt alike


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

    findings = lint(path)
    for finding in findings:
        if finding.level != "hint":
            click.echo(finding_text(finding, path), err=True)
    errors = sum(finding.level == "error" for finding in findings)
    if errors:
        raise InvalidInput(
            f"{path} was not imported: it has {errors} error{'s' if errors > 1 else ''}.",
            code="egg_has_errors",
            hint=f"Mend it; 'iceshelves egg lint {path}' checks it again.",
        )
    answer = client.post_bytes("/api/eggs/import", pack(read_local(path)))
    click.echo(f"{path}: {answer['message']}  ({answer['digest'][:19]})", err=True)
    return f"{answer['name']}@{answer['version']}"


def fetch(client: Client, text: str) -> Egg:
    """The egg that ``text`` means, wherever it is."""
    from iceshelves.eggs import unpack

    path = local_path(text)
    if path:
        return read_local(path)
    with named(client, text):
        return unpack(client.get_bytes(f"{in_library(text)}/archive"))


def in_library(name: str) -> str:
    """The path of the egg ``NAME[@VERSION]`` in the API."""
    return f"/api/eggs/{segment(name)}"


@contextlib.contextmanager
def named(client: Client | None, text: str) -> Iterator[None]:
    """Around a call that names an egg: a directory written as a name, or a misspelt name, gets its hint.

    ``client`` is the library's, ``None`` where it has nothing to do with it.
    """
    try:
        yield
    except NotFound as error:
        if error.code == "egg_not_found":
            error.hint = _egg_hint(client, text) or error.hint
        raise


def _egg_hint(client: Client | None, text: str) -> str | None:
    if Path(text).is_dir():
        return f"If you mean the directory, write ./{text}"
    if client is None:
        return None
    name, _, version = text.partition("@")
    entries = list(client.items("/api/eggs", "eggs", limit=_LOOKED_THROUGH))
    versions = [str(entry["version"]) for entry in entries if entry["name"] == name]
    if version and versions:
        return f"The latest version of {name} is {versions[0]}."
    return did_you_mean(name, (str(entry["name"]) for entry in entries))
