"""The built-in eggs and new ones: they lint clean and say what they are."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from iceshelves.core.errors import InvalidInput
from iceshelves.eggs import (
    builtin_eggs,
    diff,
    egg_from_files,
    lint,
    new_egg,
    render,
    resolve_parameters,
    templates,
)

BUILTIN = {egg.name: egg for egg in builtin_eggs()}
RELEASES = {"debian": ("debian/12", "debian/13"), "ubuntu": ("ubuntu/24.04", "ubuntu/26.04")}


def test_the_library_is_complete() -> None:
    kinds = ("base", "docker", "k8s-node", "nginx")
    assert set(BUILTIN) == {"hello-web", *(f"{family}-{kind}" for family in RELEASES for kind in kinds)}


@pytest.mark.parametrize("name", BUILTIN)
def test_built_in_eggs_are_clean_on_each_of_their_releases(name: str) -> None:
    egg = BUILTIN[name]
    for release in RELEASES.get(name.split("-")[0], ("debian/12", "debian/13", "ubuntu/24.04")):
        assert lint(egg, release=release) == []
        result = render(egg, resolve_parameters(egg, {}), release=release)
        assert result.warnings == ()
        assert result.user_data.startswith("#cloud-config\n")
        assert result.checks
    assert egg.readme is not None
    readme = egg.readme.decode()
    assert readme.startswith(f"# {name}\n")
    assert all(f"`{parameter.name}`" in readme for parameter in egg.metadata.parameters)
    assert all(parameter.description for parameter in egg.metadata.parameters)


def test_no_value_of_a_parameter_can_leave_its_place() -> None:
    egg = BUILTIN["hello-web"]
    greeting = "</h1><script>\"'\n  - evil: {{ 7 * 7 }}\nruncmd: [evil]\n日本語"
    plain = yaml.safe_load(render(egg, resolve_parameters(egg, {})).user_data)
    value = yaml.safe_load(render(egg, resolve_parameters(egg, {"greeting": greeting})).user_data)
    assert value["runcmd"] == plain["runcmd"]
    assert "<script>" not in value["write_files"][0]["content"]
    assert "日本語" in value["write_files"][0]["content"]


@pytest.mark.parametrize("template", templates())
def test_new_eggs_work_from_every_template(template: str) -> None:
    egg = new_egg("mine", template, description="Mine.", author="Me")
    assert (egg.name, str(egg.version), egg.metadata.author) == ("mine", "0.1.0", "Me")
    assert [finding for finding in lint(egg) if finding.level != "hint"] == []
    assert egg.readme is not None
    assert egg.readme.startswith(b"# mine\n")
    assert render(egg, resolve_parameters(egg, {})).user_data


def test_new_eggs_refuse_bad_input() -> None:
    for arguments in (("../x",), ("Upper",), ("ok", "no-such-template")):
        with pytest.raises(InvalidInput):
            new_egg(*arguments)
    with pytest.raises(InvalidInput):
        new_egg("ok", version="one")


def test_a_diff_names_each_file_and_the_lines(make_files: Any) -> None:
    old = egg_from_files(make_files("#cloud-config\npackages: [a]\n", {"gone": b"x\n", "data": b"\xff"}))
    new = egg_from_files(make_files("#cloud-config\npackages: [b]", {"data": b"\xfe"}, version="1.1.0"))
    text = diff(old, new)
    assert "-packages: [a]\n+packages: [b]\n\\ No newline at end of file\n" in text
    assert '- "version": "1.0.0"\n+ "version": "1.1.0"\n' in text
    assert "--- sample@1.0.0/gone\n+++ /dev/null\n" in text
    assert "Files sample@1.0.0/data and sample@1.1.0/data differ\n" in text
    assert diff(old, old) == ""
