"""The built-in appliances, and new recipes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from iceshelves.appliances import Recipe, builtin, library_path, lint, load, new, templates
from iceshelves.appliances.model import Base, FromPackage
from iceshelves.core.errors import Conflict, InvalidInput, NotFound

NAMES = ["alertmanager", "docker-registry", "haproxy", "mosquitto", "nginx", "node-exporter", "postgresql",
         "prometheus", "redis"]  # fmt: skip
BASE = Base("debian", "trixie")


def test_there_are_nine() -> None:
    assert [recipe.name for recipe in builtin()] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_each_is_clean_and_says_how_it_is_reached(name: str) -> None:
    folder = library_path() / name
    assert [str(finding) for finding in lint(folder)] == []
    recipe = load(folder)
    assert recipe.health is not None
    assert isinstance(recipe.version, FromPackage)
    assert recipe.version.package in recipe.packages
    readme = (folder / "README.md").read_text()
    for variable in recipe.environment:
        assert variable.description
        assert variable.name in readme or not variable.secret or variable.name.startswith("REGISTRY_")
    assert all(str(port.number) in readme for port in recipe.ports)
    assert all(volume.path in readme for volume in recipe.volumes)
    assert "incus launch" in readme


@pytest.mark.parametrize("name", NAMES)
def test_the_scripts_of_each_are_shell_and_use_only_declared_variables(name: str) -> None:
    recipe = load(library_path() / name)
    declared = {variable.name for variable in recipe.environment}
    for script in scripts(recipe):
        done = subprocess.run(
            ["sh", "-n"], input=script.encode(), capture_output=True, check=False, timeout=10
        )
        assert done.stderr == b""
        # '$SYS' is a topic of MQTT.
        assert set(re.findall(r"\$\{?([A-Z][A-Z0-9_]+)", script.replace("'$SYS", ""))) <= declared


def scripts(recipe: Recipe) -> list[str]:
    health = recipe.health.command if recipe.health else ""
    given = [recipe.first_boot or "", recipe.each_boot or "", health]
    return [*given, *(action.run for action in recipe.actions)]


def test_a_new_recipe_is_clean_and_on_the_base_that_was_asked_for(tmp_path: Path) -> None:
    recipe = new(tmp_path / "mine", "mine", BASE)
    assert (recipe.name, recipe.base) == ("mine", BASE)
    assert lint(tmp_path / "mine") == []


@pytest.mark.parametrize("template", NAMES)
def test_a_copy_differs_in_its_name_alone(tmp_path: Path, template: str) -> None:
    recipe = new(tmp_path / "mine", "mine", BASE, template)
    original = load(library_path() / template)
    assert recipe.name == "mine"
    assert Recipe(**{**vars(recipe), "name": original.name}).digest == original.digest
    assert (tmp_path / "mine" / "README.md").read_text().startswith("# mine\n")
    assert template in templates()


@pytest.mark.parametrize("name", ["", "a", "A", "1a", "a_b", "a-", "../a", "a\nb", "a" * 64])
def test_names_that_no_appliance_has(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput):
        new(tmp_path / "mine", name, BASE)
    assert list(tmp_path.iterdir()) == []


def test_a_new_recipe_replaces_nothing(tmp_path: Path) -> None:
    with pytest.raises(Conflict):
        new(tmp_path, "mine", BASE)
    with pytest.raises(NotFound):
        new(tmp_path / "mine", "mine", BASE, "nothing")
    with pytest.raises(InvalidInput):
        new(tmp_path / "mine", "mine", Base("debian", "noble"))
    assert list(tmp_path.iterdir()) == []
