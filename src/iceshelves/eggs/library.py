"""The built-in eggs, and new eggs made from them or from nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from iceshelves.core.errors import InvalidInput, NotFound
from iceshelves.core.names import check_object_name
from iceshelves.eggs.build import egg_from_files
from iceshelves.eggs.directory import read_directory
from iceshelves.eggs.model import METADATA, README, USER_DATA, Egg

_PACKAGE: Final = Path(__file__).resolve().parent.parent
_ALIASES: Final = {"web": "hello-web"}
_MINIMAL: Final = "cloud-config"
_USER_DATA: Final = """\
#cloud-config
# What cloud-init does in each new instance: https://docs.cloud-init.io/en/latest/reference/
write_files:
  - path: /etc/motd
    content: {{ motd | yaml }}
runcmd:
  - [sh, -c, "echo configured > /var/lib/egg-ready"]
"""


def library_path() -> Path:
    """Where the built-in eggs lie: in the installed package, or in the checkout that this runs from.

    Raises :class:`NotFound` (``library_missing``).
    """
    for path in (_PACKAGE / "_library" / "eggs", _PACKAGE.parent.parent / "eggs"):
        if path.is_dir():
            return path
    raise NotFound("The built-in eggs are missing.", code="library_missing", hint="Install IceShelves again.")


def builtin_eggs() -> list[Egg]:
    """The built-in eggs by name.  Raises :class:`NotFound` (``library_missing``)."""
    return [read_directory(path) for path in sorted(library_path().iterdir()) if (path / METADATA).is_file()]


def templates() -> list[str]:
    """What :func:`new_egg` can start from."""
    return [_MINIMAL, *_ALIASES, *(egg.name for egg in builtin_eggs())]


def new_egg(name: str, template: str = _MINIMAL, **fields: Any) -> Egg:
    """A working egg called ``name``: a minimal one, or a copy of a built-in one.

    ``fields`` replace keys of its metadata (``description``, ``author``, ``version`` …).  Raises
    :class:`InvalidInput` for a bad name, an unknown template or bad fields.
    """
    check_object_name(name, "an egg")
    files = _minimal_files() if template == _MINIMAL else _copied_files(template)
    own = {"name": name, "display_name": name, "version": "0.1.0"}
    metadata = own | json.loads(files[METADATA]) | own | fields  # own first: they stand at the top
    files[METADATA] = (json.dumps(metadata, indent=2, ensure_ascii=False) + "\n").encode()
    _, _, rest = files.get(README, b"").partition(b"\n")
    files[README] = f"# {name}\n".encode() + rest
    return egg_from_files(files)


def _minimal_files() -> dict[str, bytes]:
    metadata = {
        "description": "Describe in one sentence what the instance does.",
        "category": "custom",
        "egg_type": "lxd-container",
        "base_image": "debian/12",
        "tags": [],
        "requirements": {"min_memory_mb": 256, "min_cores": 1},
        "rendering": "jinja",
        "parameters": {"motd": {"type": "string", "description": "Greeting at log-in", "default": "Hello."}},
        "checks": [{"name": "configured", "command": ["test", "-f", "/var/lib/egg-ready"]}],
    }
    readme = "#\n\nSay what this egg is for, what its parameters do, and how to see that it works.\n"
    return {
        METADATA: json.dumps(metadata).encode(),
        USER_DATA: _USER_DATA.encode(),
        README: readme.encode(),
    }


def _copied_files(template: str) -> dict[str, bytes]:
    wanted = _ALIASES.get(template, template)
    for egg in builtin_eggs():
        if egg.name == wanted:
            return dict(egg.files)
    raise InvalidInput(
        f"There is no template {template[:80]!r}.",
        code="unknown_template",
        hint=f"Use one of {', '.join(templates())}.",
    )
