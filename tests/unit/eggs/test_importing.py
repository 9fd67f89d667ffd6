"""The package is cheap to import and offers what it promises."""

from __future__ import annotations

import subprocess
import sys

import iceshelves.eggs

HEAVY = {"jinja2", "jsonschema_rs", "pydantic", "yaml", "socket"}


def test_every_name_resolves_to_itself() -> None:
    for name in iceshelves.eggs.__all__:
        assert getattr(iceshelves.eggs, name).__name__ == name


def test_importing_the_package_brings_nothing_heavy() -> None:
    program = "import sys, iceshelves.eggs; print(*{name.split('.')[0] for name in sys.modules})"
    completed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not HEAVY & set(completed.stdout.split())


def test_reading_and_packing_need_no_template_engine_or_validator() -> None:
    program = (
        "import sys; from iceshelves.eggs import unpack, read_directory, builtin_eggs\n"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    completed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not (HEAVY - {"yaml"}) & set(completed.stdout.split())
