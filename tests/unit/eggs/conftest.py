"""Small eggs to try things on."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from iceshelves.eggs import Egg, egg_from_files

MakeEgg = Callable[..., Egg]
MakeFiles = Callable[..., dict[str, bytes]]


@pytest.fixture
def make_files() -> MakeFiles:
    """Files of an egg: user-data, more files by name, and keys of its metadata."""

    def make(
        user_data: str | bytes = "#cloud-config\n", more: dict[str, bytes] | None = None, **metadata: Any
    ) -> dict[str, bytes]:
        content = {"name": "sample", "version": "1.0.0", **metadata}
        return {
            "metadata.json": json.dumps(content, indent=1, ensure_ascii=False).encode(),
            "cloud-init.yaml": user_data if isinstance(user_data, bytes) else user_data.encode(),
            "README.md": b"# sample\n",
            **(more or {}),
        }

    return make


@pytest.fixture
def make_egg(make_files: MakeFiles) -> MakeEgg:
    """Like ``make_files``, built into an egg."""
    return lambda *args, **kwargs: egg_from_files(make_files(*args, **kwargs))
