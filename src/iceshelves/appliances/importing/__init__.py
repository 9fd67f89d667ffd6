"""Recipes of the Incus Appliance Registry, in both of its forms, made into ours.

The first form has a distrobuilder ``image.yaml`` beside ``appliance.yaml``, the second a ``config.yaml`` with
cloud-init's user-data.  What a recipe of ours cannot say is a finding, and so is what it need not say.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from iceshelves.appliances.folder import Folder, opened
from iceshelves.appliances.importing.cloudconfig import CONFIG, read_config
from iceshelves.appliances.importing.distrobuilder import IMAGE, read_image
from iceshelves.appliances.importing.draft import Draft, Source, written
from iceshelves.appliances.importing.identity import read_identity
from iceshelves.appliances.library import write_folder
from iceshelves.appliances.model import README, RECIPE
from iceshelves.core.bounded import MAX_BYTES, load_yaml_with_lines
from iceshelves.core.errors import InvalidInput, NotFound
from iceshelves.core.finding import Finding

_ORDER: Final = {"error": 0, "warning": 1, "hint": 2}


def import_original(folder: Path, into: Path) -> list[Finding]:
    """Make the recipe in ``folder``, of either form, into one of ours in the new folder ``into``.

    Returns what was refused (errors), could not be carried over (warnings) or is not needed (hints), by the
    files and lines of the original.  Raises :class:`NotFound` and :class:`InvalidInput` where nothing usable
    comes out of it and :class:`Conflict` where ``into`` exists; then nothing is written.
    """
    with opened(folder) as source:
        draft = _draft(source)
    try:
        write_folder(into, written(draft))
    except InvalidInput as error:
        raise InvalidInput(
            f"What the original says does not make a recipe: {error.message}",
            code="import_failed",
            hint="Correct it in the original.",
            details=error.details,
        ) from error
    unique = dict.fromkeys(draft.findings)
    return sorted(unique, key=lambda f: (_ORDER[f.level], f.file, f.line, f.message))


def _draft(folder: Folder) -> Draft:
    for needed in (RECIPE, (IMAGE, CONFIG)):
        names = (needed,) if isinstance(needed, str) else needed
        if not any(folder.has(name) for name in names):
            raise NotFound(
                f"The folder has no {' or '.join(names)}.",
                code="appliance_not_found",
                hint=f"An original has {RECIPE}, and {IMAGE} or {CONFIG}.",
            )
    draft = Draft()
    read_identity(_source(folder, RECIPE), draft)
    if folder.has(CONFIG):  # the later form; an image.yaml beside it is a left-over that nothing built from
        if folder.has(IMAGE):
            message = f"{CONFIG} is the newer form; this was not read."
            draft.findings.append(Finding("hint", "not_needed", message, IMAGE))
        read_config(_source(folder, CONFIG), folder, draft)
    else:
        read_image(_source(folder, IMAGE), folder, draft)
    if folder.has(README):
        draft.contents[README] = folder.read(README, MAX_BYTES)
    return draft


def _source(folder: Folder, name: str) -> Source:
    """One of the original's YAML files.  Raises :class:`InvalidInput`: malformed, or out of bounds."""
    content = folder.read(name, MAX_BYTES)
    document = load_yaml_with_lines(content, source=name)
    if not isinstance(document.value, dict):
        raise InvalidInput(
            f"{name} does not hold a mapping.",
            code="not_a_mapping",
            hint="Is this the right folder?",
            details={"file": name, "line": 1},
        )
    return Source(name, document, content.decode())
