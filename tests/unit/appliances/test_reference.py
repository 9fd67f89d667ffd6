"""The reference page is what the schema says."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest

from iceshelves.appliances.schema import schema

REPOSITORY: Final = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "appliance_reference", REPOSITORY / "scripts" / "appliance_reference.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_current(reference: ModuleType) -> None:
    assert reference.PAGE.read_text() == reference.page(), "run scripts/appliance_reference.py"


def test_every_field_is_on_it_and_explained(reference: ModuleType) -> None:
    page = reference.page()
    for name in schema()["properties"]:
        assert re.search(rf"^\| \**`{name}`\** \| [^|]+ \| [^|]* \| \S", page, re.MULTILINE), name
