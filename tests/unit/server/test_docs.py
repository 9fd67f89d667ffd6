"""The reference pages that are made from code are current."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkey = pytest.MonkeyPatch()
    monkey.setitem(sys.modules, name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    monkey.undo()
    return module


def test_the_page_of_errors() -> None:
    errors = script("error_reference")
    found = errors.collect()
    assert {"egg_not_found", "body_too_large", "internal_error", "duplicate_key"} <= set(found)
    assert errors.PAGE.read_text() == errors.render(found), "run scripts/error_reference.py"


def test_the_page_of_the_api() -> None:
    api = script("api_reference")
    assert api.PAGE.read_text() == api.render(), "run scripts/api_reference.py"
