"""Recipes as a user names them: a folder on the own disk, or an appliance that the server brings along."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from iceshelves.cli.findings import finding_text, tally
from iceshelves.core.errors import Failed, InvalidInput

if TYPE_CHECKING:
    from iceshelves.core.finding import Finding

#: beside the recipe, as builders and Git know it
LOCK: Final = "appliance.lock"
# What a server takes: a file of at most a MiB in base64, and a request of 20 MiB with everything in it.
_MAX_FILE: Final = 768 * 1024
_MAX_FILES: Final = 14 * 1024 * 1024
_MAX_LOCK: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to build, as the user named it: a built-in appliance, or what is in ``folder``."""

    name: str
    folder: Path | None = None

    def body(self) -> dict[str, Any]:
        """The part of a request that says it, its files in base64.

        What is wrong with it is told on standard error.  Raises :class:`InvalidInput` where that would keep
        it from being built, and :class:`NotFound`.
        """
        return {"appliance": self.name} if self.folder is None else {"files": _files(self.folder)}

    @property
    def lock(self) -> Path | None:
        """Where its lock belongs, if it has a folder."""
        return None if self.folder is None else self.folder / LOCK


def recipe_of(text: str) -> Recipe:
    """What ``text`` means: a folder if it has a ``/`` or there is one here, else a built-in appliance."""
    path = Path(text)
    is_path = "/" in text or text in (".", "..") or path.is_dir()
    return Recipe(text, path) if is_path else Recipe(text)


def tell_worst(findings: Sequence[Finding], folder: Path) -> int:
    """Print what is worse than a hint to standard error; how many of it are errors."""
    for finding in findings:
        if finding.level != "hint":
            click.echo(finding_text(finding, folder), err=True)
    return sum(finding.level == "error" for finding in findings)


def read_lock(path: Path) -> str:
    """The lock in the file ``path``.  Raises :class:`InvalidInput` ``invalid_lock``."""
    try:
        with path.open("rb") as stream:
            content = stream.read(_MAX_LOCK + 1)
        if len(content) <= _MAX_LOCK:
            return content.decode()
        reason = "it is larger than a lock can be"
    except OSError as error:
        reason = error.strerror or "it cannot be read"
    except UnicodeDecodeError:
        reason = "it is not text"
    raise InvalidInput(
        f"{path} cannot be used: {reason}.",
        code="invalid_lock",
        hint="Give the lock of an earlier build, or build without one.",
    )


def fits(lock: str, architecture: str | None) -> bool:
    """Whether a build for ``architecture`` (``None``: the recipe's first) may use ``lock``."""
    try:
        made_for = json.loads(lock)["architecture"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return True  # the server says what is wrong with it
    return architecture in (None, made_for)


def write_lock(path: Path, lock: str) -> None:
    """Write ``lock`` to ``path``, all or nothing.  Raises :class:`Failed` ``path_unwritable``."""
    unfinished = path.with_name(f".{path.name}.new")
    try:
        unfinished.write_text(lock)
        unfinished.replace(path)
    except OSError as error:
        raise Failed(
            f"{path} cannot be written: {error.strerror}.",
            code="path_unwritable",
            hint="The build itself succeeded; its lock is kept on the server.",
        ) from error


def _files(folder: Path) -> dict[str, str]:
    from iceshelves.appliances import lint
    from iceshelves.appliances.folder import opened

    findings = lint(folder)
    if tell_worst(findings, folder):
        raise InvalidInput(
            f"{folder} was not sent: {tally(findings)}.",
            code="recipe_has_errors",
            hint=f"Mend it; 'iceshelves appliance lint {folder}' checks it again.",
        )
    with opened(folder) as source:
        contents = {name: source.read(name) for name in source.names() if name != LOCK}
    for name, content in contents.items():
        if len(content) > _MAX_FILE:
            raise _too_large(f"{name} has more than {_MAX_FILE // 1024} KiB")
    if sum(map(len, contents.values())) > _MAX_FILES:
        raise _too_large(f"its files have more than {_MAX_FILES // 1024**2} MiB together")
    return {name: base64.b64encode(content).decode() for name, content in contents.items()}


def _too_large(what: str) -> InvalidInput:
    return InvalidInput(
        f"This recipe cannot be sent: {what}.",
        code="recipe_too_large",
        hint="Let a package bring large files.",
    )
