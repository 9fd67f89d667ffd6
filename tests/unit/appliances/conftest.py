"""Small recipes to try things on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

MakeRecipe = Callable[..., Path]

HEAD = """\
name: sample
version: '1.0'
description: A sample.
base: {distribution: debian, release: bookworm}
"""


@pytest.fixture
def make_recipe(tmp_path: Path) -> MakeRecipe:
    """A folder with an ``appliance.yaml`` of ``text`` below the four needed fields, and more files."""

    def make(text: str = "", head: str = HEAD, **files: str | bytes) -> Path:
        folder = tmp_path / "sample"
        folder.mkdir(exist_ok=True)
        (folder / "appliance.yaml").write_text(head + text)
        (folder / "README.md").write_text("# sample\n")
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return folder

    return make
