"""Putting files into a tree, with the tree as root: no link in it leads anywhere else."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from iceshelves.appliances.model import File
from iceshelves.core.errors import InvalidInput

_TAKEN: Final = ("/proc", "/dev", "/sys", "/run", "/tmp")  # noqa: S108  (of the image, where nothing lasts)


def place(root: Path, files: Iterable[File]) -> None:
    """Write each file with its owner and mode; folders that are missing belong to root.

    Raises :class:`InvalidInput` (``file_unplaceable``) for an owner that the image does not know, or a
    place where no file can be.
    """
    owners, groups = _ids(root / "etc/passwd"), _ids(root / "etc/group")
    for file in files:
        user = _id(file.owner, owners, file, "user")
        group = _id(file.group, groups, file, "group")
        _place(root, file, user, group)


def _place(root: Path, file: File, user: int, group: int) -> None:
    if any(file.path == taken or file.path.startswith(f"{taken}/") for taken in _TAKEN):
        raise _unplaceable(file, "that folder is empty in a running system's image")
    target = root / file.path.lstrip("/")
    beside = target.with_name(f".{target.name}.new")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
            opened.write(file.content)
            os.fchown(opened.fileno(), user, group)
            os.fchmod(opened.fileno(), file.mode)
        beside.replace(target)
    except OSError as error:
        raise _unplaceable(file, str(error.strerror)) from error


def _ids(path: Path) -> dict[str, int]:
    """Name to number, from a file as passwd(5) and group(5) have it; the C library would ask the host."""
    fields = (line.split(":") for line in path.read_text().splitlines())
    return {each[0]: int(each[2]) for each in fields if len(each) > 2 and each[2].isdigit()}


def _id(name: str, known: dict[str, int], file: File, what: str) -> int:
    if name not in known:
        raise InvalidInput(
            f"{file.path} belongs to the {what} {name}, which the image does not have.",
            code="file_unplaceable",
            hint="Name one that a package of the recipe makes, or change the owner in an action.",
        )
    return known[name]


def _unplaceable(file: File, why: str) -> InvalidInput:
    return InvalidInput(
        f"{file.path} cannot be put into the image: {why}.",
        code="file_unplaceable",
        hint="Use another path.",
    )
