from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def reference() -> Any:
    spec = importlib.util.spec_from_file_location(
        "cli_reference", REPOSITORY / "scripts" / "cli_reference.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_current(reference: Any) -> None:
    assert reference.PAGE.read_text() == reference.page(), "run scripts/cli_reference.py"


def test_the_check_notices_a_page_that_is_not(
    reference: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "PAGE", tmp_path / "cli.md")
    monkeypatch.setattr("sys.argv", ["cli_reference.py", "--check"])
    assert reference.main() == 1
    monkeypatch.setattr("sys.argv", ["cli_reference.py"])
    assert reference.main() == 0
    monkeypatch.setattr("sys.argv", ["cli_reference.py", "--check"])
    assert reference.main() == 0
