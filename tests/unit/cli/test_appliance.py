from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

BUILT_IN = {
    "name": "nginx",
    "title": "nginx",
    "description": "A web server.",
    "version": "",
    "version_from": "nginx",
    "base": "debian/bookworm",
    "architectures": ["amd64", "arm64"],
    "types": ["container"],
    "ports": [{"number": 80, "protocol": "tcp", "description": "HTTP"}],
    "tags": ["web"],
}
ORIGINAL = """\
name: web
version: 1.22.1
description: A web server.
"""
CLOUD = """\
config:
  cloud-init.user-data: |
    #cloud-config
    packages: [nginx]
    runcmd:
      - systemctl enable nginx
    chpasswd:
      list: "root:admin"
"""


def test_a_new_recipe_is_on_the_base_that_was_asked_for_and_lints_clean(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "web"
    done = run("appliance", "new", str(path), "--base", "ubuntu/24.04")
    assert (done.code, done.out) == (0, f"Made {path}.  Edit it, then: iceshelves appliance lint {path}\n")
    assert "release: noble" in (path / "appliance.yaml").read_text()
    assert run("appliance", "lint", str(path)).code == 0
    assert run("appliance", "new", str(path)).code == 1


def test_a_copy_of_a_built_in_appliance_has_its_own_name(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "mine"
    assert run("appliance", "new", str(path), "--from", "nginx").code == 0
    assert "name: mine\n" in (path / "appliance.yaml").read_text()
    assert run("appliance", "new", str(tmp_path / "x1"), "--from", "nginx", "--base", "debian/12").code == 2


@pytest.mark.parametrize("base", ["debian", "fedora/40", "debian/noble", "debian/../12", "ubuntu/12"])
def test_a_base_that_recipes_cannot_have_is_refused(run: Any, tmp_path: Path, base: str) -> None:
    done = run("appliance", "new", str(tmp_path / "web"), "--base", base)
    assert done.code == 1
    assert "unknown_base" in done.err
    assert not (tmp_path / "web").exists()


def test_findings_read_as_a_compilers_and_errors_fail(run: Any, tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    run("appliance", "new", str(good))
    run("appliance", "new", str(bad))
    recipe = bad / "appliance.yaml"
    recipe.write_text(recipe.read_text().replace("packages: []", "packages: nginx"))
    done = run("appliance", "lint", str(good), str(bad))
    assert done.code == 1
    place, level, _ = done.out.splitlines()[0].split(": ", 2)
    assert (place.startswith(f"{recipe}:"), level) == (True, "error")
    assert done.err.startswith("2 recipes: 1 error")
    found = run("appliance", "lint", str(bad), "--format", "json").json
    assert found[0]["path"] == str(bad)
    assert f"{recipe}:{found[0]['line']}" == place


def test_an_original_is_imported_and_what_was_refused_is_told_with_its_line(run: Any, tmp_path: Path) -> None:
    original, target = tmp_path / "original", tmp_path / "web"
    original.mkdir()
    (original / "appliance.yaml").write_text(ORIGINAL)
    (original / "config.yaml").write_text(CLOUD)
    done = run("appliance", "import", str(original), "--into", str(target))
    assert (done.code, done.out.startswith(f"Made {target}.")) == (0, True)
    assert f"{original}/config.yaml:" in done.err
    assert "- nginx" in (target / "appliance.yaml").read_text()
    again = run("appliance", "import", str(original), "--into", str(target))
    assert (again.code, "path_exists" in again.err) == (1, True)


def test_what_is_no_recipe_is_told(run: Any, tmp_path: Path) -> None:
    for command in (
        ("lint", str(tmp_path / "none")),
        ("import", str(tmp_path), "--into", str(tmp_path / "x")),
    ):
        done = run("appliance", *command)
        assert (done.code, "appliance_not_found" in done.err) == (1, True)


def test_the_built_in_ones_are_listed_and_shown(run: Any, server: Any, listed: Any) -> None:
    server.on("GET", "/api/appliances", listed("appliances", BUILT_IN))
    detail = {
        **BUILT_IN,
        "readme": "# nginx\nOn port 80.\x1b[2J\n",
        "recipe": "name: nginx\n",
        "packages": ["nginx"],
    }
    server.on("GET", "/api/appliances/nginx", detail)
    assert "that of nginx" in run("appliance", "list").out
    assert run("appliance", "list", "--json", "name").json == [{"name": "nginx"}]
    shown = run("appliance", "show", "nginx").out
    assert "80/tcp HTTP" in shown
    assert shown.endswith("# nginx\nOn port 80.\n")
    assert run("appliance", "show", "nginx", "--recipe").out == "name: nginx\n"
