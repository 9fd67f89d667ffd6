"""The files of a recipe on their way to a builder: sent as a map, kept in one piece, written to a folder."""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from iceshelves.appliances import Recipe, builtin, library_path, load
from iceshelves.appliances.paths import wrong_with_name
from iceshelves.core.errors import InvalidInput, NotFound

_MAX_FILES: Final = 500


def decode_files(sent: Mapping[str, str]) -> dict[str, bytes]:
    """The files of a recipe by their relative paths; their contents come in base64.

    Raises :class:`InvalidInput` ``unsafe_file_name``, ``invalid_file`` and ``too_many_files``.
    """
    if len(sent) > _MAX_FILES:
        raise InvalidInput(f"A recipe has at most {_MAX_FILES} files.", code="too_many_files")
    return {_checked(name): _content(name, text) for name, text in sent.items()}


def _checked(name: str) -> str:
    if reason := wrong_with_name(name):
        raise InvalidInput(
            f"The file name {name[:120]!a} {reason}.",
            code="unsafe_file_name",
            hint="Files of a recipe have plain names below its own folder.",
        )
    return name


def _content(name: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput(
            f"The content of {name} is not base64.", code="invalid_file", hint="Send each file in base64."
        ) from error


def builtin_files(name: str) -> dict[str, bytes]:
    """The files of the built-in appliance ``name``.  Raises :class:`NotFound` ``appliance_not_found``."""
    if name not in {recipe.name for recipe in builtin()}:
        raise NotFound(
            f"There is no built-in appliance {name!r}.",
            code="appliance_not_found",
            hint="iceshelves appliance list shows them; give a folder for one of your own.",
        )
    folder = library_path() / name
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def pack(files: Mapping[str, bytes]) -> bytes:
    """The files in one piece, as the database keeps them."""
    encoded = {name: base64.b64encode(content).decode() for name, content in sorted(files.items())}
    return zlib.compress(json.dumps(encoded).encode())


def unpack(packed: bytes) -> dict[str, bytes]:
    """What :func:`pack` packed."""
    encoded: dict[str, str] = json.loads(zlib.decompress(packed))
    return {name: base64.b64decode(text) for name, text in encoded.items()}


def write(files: Mapping[str, bytes], folder: Path) -> Recipe:
    """Write the files into the new ``folder`` and read the recipe.  Raises what :func:`load` raises."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        path = folder / _checked(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise InvalidInput(
                f"{name[:120]!a} is a file and a folder at once.",
                code="unsafe_file_name",
                hint="Give each file of the recipe a name of its own.",
            ) from error
    return load(folder)
