"""The built-in appliances, and new recipes made from them or from nothing."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from iceshelves.appliances.folder import opened
from iceshelves.appliances.linting import LOCK
from iceshelves.appliances.model import README, RECIPE, Base, Recipe
from iceshelves.appliances.reading import load
from iceshelves.core.errors import Conflict, InvalidInput, NotFound

MINIMAL: Final = "minimal"
_PACKAGE: Final = Path(__file__).resolve().parent.parent
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,61}[a-z0-9]")
_RECIPE: Final = """\
# What each field means: docs/reference/appliance-yaml.md
name: {name}
version: '0.1.0'  # or the version of a package: {{from_package: NAME}}
description: Describe in one sentence what the appliance does.
base:
  distribution: {base.distribution}
  release: {base.release}

packages: []

files:
  - path: /etc/motd
    source: files/motd

# Secrets are generated at the first boot, never while the image is built.
first_boot: |
  date --utc +%FT%TZ >/var/lib/{name}-born

health:
  command: test -s /var/lib/{name}-born
"""
_README: Final = """\
# {name}

Say what the appliance is for, how it is reached, and where its credentials are.
"""


def library_path() -> Path:
    """Where the built-in appliances lie: in the installed package, or in the checkout that this runs from.

    Raises :class:`NotFound` (``library_missing``).
    """
    for path in (_PACKAGE / "_library" / "appliances", _PACKAGE.parent.parent / "appliances"):
        if path.is_dir():
            return path
    raise NotFound(
        "The built-in appliances are missing.", code="library_missing", hint="Install IceShelves again."
    )


def builtin() -> list[Recipe]:
    """The built-in appliances by name.  Raises :class:`NotFound` (``library_missing``)."""
    return [load(path) for path in _folders()]


def builtin_path(name: str) -> Path:
    """The folder of the built-in appliance ``name``.  Raises :class:`NotFound` (``appliance_not_found``)."""
    for path in _folders():
        if path.name == name:
            return path
    raise NotFound(
        f"No built-in appliance is called {name[:80]!r}.",
        code="appliance_not_found",
        hint=f"There are {', '.join(path.name for path in _folders())}.",
    )


def templates() -> list[str]:
    """What :func:`new` can start from."""
    return [MINIMAL, *(path.name for path in _folders())]


def new(folder: Path, name: str, base: Base, template: str = MINIMAL) -> Recipe:
    """Write a working recipe called ``name`` on ``base`` to the new ``folder``, all of it or nothing.

    A copy of a built-in appliance keeps the base that it was written for.  Raises :class:`InvalidInput` for a
    bad name, :class:`NotFound` for an unknown template and :class:`Conflict` where the folder exists.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"{name[:80]!r} cannot be the name of an appliance.",
            code="invalid_name",
            hint="Use 2 to 63 of a-z, 0-9 and '-'; begin with a letter and do not end with '-'.",
        )
    files = _minimal(name, base) if template == MINIMAL else _copied(builtin_path(template), name)
    return write_folder(folder, files)


def write_folder(folder: Path, files: Mapping[str, bytes]) -> Recipe:
    """Write ``files``, by plain relative names, to the new ``folder``; or nothing, unless they are a recipe.

    Raises :class:`Conflict` (``path_exists``), and :class:`InvalidInput` like :func:`load`.
    """
    if folder.exists() or folder.is_symlink():
        raise Conflict(f"{folder} exists already.", code="path_exists", hint="Choose another folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for name, content in files.items():
            target = made / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        made.chmod(0o755)
        recipe = load(made)
        made.rename(folder)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    return recipe


def _folders() -> list[Path]:
    return [path for path in sorted(library_path().iterdir()) if (path / RECIPE).is_file()]


def _minimal(name: str, base: Base) -> dict[str, bytes]:
    return {
        RECIPE: _RECIPE.format(name=name, base=base).encode(),
        README: _README.format(name=name).encode(),
        "files/motd": b"Hello.\n",
    }


def _copied(path: Path, name: str) -> dict[str, bytes]:
    with opened(path) as folder:
        files = {found: folder.read(found) for found in folder.names() if found != LOCK}
    # The text is edited, not written anew: comments are half of what a copy is good for.
    files[RECIPE] = re.sub(rb"(?m)^name: .*$", f"name: {name}".encode(), files[RECIPE], count=1)
    _, _, rest = files.get(README, b"").partition(b"\n")
    files[README] = f"# {name}\n".encode() + rest
    return files
