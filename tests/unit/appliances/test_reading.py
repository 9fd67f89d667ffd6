"""Reading appliance.yaml: what a recipe becomes, and what is said about one that cannot be read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from iceshelves.appliances import Recipe, load, upstream_version
from iceshelves.appliances.model import Base, FromPackage, Health, Services, Variable, Volume
from iceshelves.appliances.schema import schema
from iceshelves.core.errors import InvalidInput, NotFound

from .conftest import HEAD, MakeRecipe

ALL = """\
title: Sample
homepage: https://example.org/
tags: [web]
architectures: [amd64, arm64]
types: [container, virtual-machine]
packages: [nginx, libstdc++6]
files:
  - {path: /etc/a, content: "é\\n", mode: '0640', owner: 'root:www-data'}
  - {path: /etc/b, source: files/b, owner: nobody}
actions:
  - {name: one, run: 'true'}
  - {name: two, run: 'true', network: true}
first_boot: echo first
each_boot: echo each
services: {enable: [nginx, a.timer, postgresql@15-main], disable: [cron]}
ports: [{port: 53}, {port: 53, protocol: udp, description: DNS}]
volumes: [{path: /var/lib/My_data, size: 1GiB}, {name: site, path: /srv, owner: www-data, mode: '0750'}]
environment: [{name: A, default: ''}, {name: B_PASSWORD, secret: true}]
health: {command: 'true', interval: 1m, timeout: 2s, retries: 5, start_period: 0s}
resources: {min_cpu: 1, min_memory: 64MiB, recommended_memory: 1GB}
profile:
  config: {limits.cpu: 2, security.nesting: false}
  devices: {root: {type: disk, path: /}}
cloud_init: false
aliases: [web/sample]
allow_secrets: [{path: /etc/ssl/*, reason: Made for a test only}]
"""


def findings_of(folder: Path) -> list[dict[str, Any]]:
    with pytest.raises(InvalidInput) as caught:
        load(folder)
    assert caught.value.code == "invalid_recipe"
    found: list[dict[str, Any]] = caught.value.details["findings"]
    return found


def test_everything_that_a_recipe_can_say_is_read(make_recipe: MakeRecipe) -> None:
    recipe = load(make_recipe(ALL, **{"files/b": b"\x00binary"}))
    assert recipe.base == Base("debian", "bookworm")
    assert [(f.path, f.content, f.mode, f.owner, f.group) for f in recipe.files] == [
        ("/etc/a", "é\n".encode(), 0o640, "root", "www-data"),
        ("/etc/b", b"\x00binary", 0o644, "nobody", "nobody"),
    ]
    assert [(action.name, action.network) for action in recipe.actions] == [("one", False), ("two", True)]
    assert recipe.services == Services(
        ("nginx.service", "a.timer", "postgresql@15-main.service"), ("cron.service",)
    )
    assert recipe.volumes == (
        Volume("var-lib-my-data", "/var/lib/My_data", size=2**30),
        Volume("site", "/srv", owner="www-data:www-data", mode=0o750),
    )
    assert recipe.environment == (Variable("A", ""), Variable("B_PASSWORD", secret=True))
    assert recipe.health == Health("true", 60, 2, 5, 0)
    assert (recipe.resources.min_memory, recipe.resources.recommended_memory) == (64 * 2**20, 10**9)
    assert recipe.profile.config == {"limits.cpu": "2", "security.nesting": "false"}
    assert not recipe.cloud_init


def test_a_recipe_of_four_fields_is_enough(make_recipe: MakeRecipe) -> None:
    recipe = load(make_recipe())
    assert recipe == Recipe("sample", "1.0", "A sample.", Base("debian", "bookworm"), title="sample")
    assert (recipe.architectures, recipe.types, recipe.cloud_init) == (("amd64",), ("container",), True)


def test_the_example_uses_every_field_of_the_schema() -> None:
    fields = set(schema()["properties"]) - {"maintainer", "see_also"}
    assert {name for name in fields if f"{name}:" not in HEAD + ALL} == set()


def test_the_schema_is_a_schema() -> None:
    assert jsonschema_rs.meta.is_valid(schema())


@pytest.mark.parametrize(
    ("text", "line", "field", "words"),
    [
        ("verson: 1", 5, "verson", "Did you mean version?"),
        ("nonsense: 1", 5, "nonsense", "It may have name"),
        ("health:\n  comand: x", 5, "health", "needs command"),
        ("health:\n  comand: x", 6, "health.comand", "Did you mean command?"),
        ("files:\n  - {path: /etc/a, content: a, mode: 0644}", 6, "files.0.mode", "in quotes"),
        ("files:\n  - {path: /etc/a}", 6, "files.0", "either content, or source"),
        ("files:\n  - {path: /etc/a, content: a, mode: '4755'}", 6, "files.0.mode", "three octal digits"),
        ("ports: [{port: 70000}]", 5, "ports.0.port", "from 1 to 65535"),
        ("ports: [{port: 80}, {port: 80}]", 5, "ports.1.port", "given twice"),
        ("health: {command: x, interval: 5}", 5, "health.interval", "in quotes"),
        ("health: {command: x, interval: 5 s}", 5, "health.interval", "such as 30s"),
        ("health: {command: x, timeout: 0s}", 5, "health.timeout", "more than nothing"),
        ("packages: [nginx=1.2]", 5, "packages.0", "without a version"),
        ("packages: [nginx, nginx]", 5, "packages", "given twice"),
        ("architectures: [x86_64]", 5, "architectures.0", "one of amd64"),
        ("environment: [{name: A, secret: true, default: x}]", 5, "environment.0.default", "everybody"),
        ("environment: [{name: PATH}]", 5, "environment.0.name", "every environment"),
        ("environment: [{name: A, default: \"a\\nb\"}]", 5, "environment.0.default", "single line"),
        ("services: {enable: [a], disable: [a.service]}", 5, "services.disable.0", "both enabled and"),
        ("services: {enable: [appliance]}", 5, "services.enable.0", "every appliance"),
        ("resources: {min_cpu: 4, recommended_cpu: 2}", 5, "resources.recommended_cpu", "less than"),
        ("profile: {devices: {eth0: {name: eth0}}}", 5, "profile.devices.eth0", "needs type"),
        ("aliases: [sample]", 5, "aliases.0", "by itself"),
        ("title: a\ntitle: b", 6, "title", "given twice"),
        ("tags: 2024-01-01", 5, "tags", "a list"),
        ("title: 2024-01-01", 5, "title", "in quotes"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(
    make_recipe: MakeRecipe, text: str, line: int, field: str, words: str
) -> None:
    found = findings_of(make_recipe(text + "\n"))
    assert any(
        f["line"] == line and f["field"] == field and words in f"{f['message']} {f['hint']}" for f in found
    ), found


@pytest.mark.parametrize(
    ("release", "expected"), [("'12'", "bookworm"), ("trixie", "trixie"), ("'99'", None), ("noble", None)]
)
def test_releases_have_numbers_and_names(make_recipe: MakeRecipe, release: str, expected: str | None) -> None:
    folder = make_recipe(head=HEAD.replace("bookworm", release))
    if expected:
        assert load(folder).base.release == expected
    else:
        assert [f["code"] for f in findings_of(folder)] == ["unknown_release"]


@pytest.mark.parametrize(
    "path",
    ["/etc/../x", "/etc//x", "/", "etc/x", "/proc/x", "/run/x", "/dev/x", "/lib/x", "/var/run/x",
     "/usr/lib/appliance/boot", "/etc/appliance/environment", "/etc/a\\nb", "/" + "x/" * 20 + "x"],
)  # fmt: skip
def test_paths_that_no_file_of_an_image_has(make_recipe: MakeRecipe, path: str) -> None:
    found = findings_of(make_recipe(f'files: [{{path: "{path}", content: a}}]\n'))
    assert [f["field"] for f in found] == ["files.0.path"]


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "files/../../secret", "files//a", "nothing"])
def test_sources_outside_the_folder(make_recipe: MakeRecipe, tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_text("secret")
    found = findings_of(make_recipe(f"files: [{{path: /etc/a, source: {name}}}]\n"))
    assert [f["field"] for f in found] == ["files.0.source"]


def test_links_and_what_is_no_file(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    text = "files: [{path: /etc/a, source: a}, {path: /etc/b, source: d/b}, {path: /etc/c, source: pipe}]\n"
    folder = make_recipe(text)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "b").write_text("secret")
    (folder / "a").symlink_to(tmp_path / "outside" / "b")
    (folder / "d").symlink_to(tmp_path / "outside")
    os.mkfifo(folder / "pipe")
    assert [f["code"] for f in findings_of(folder)] == ["unsafe_file"] * 3


def test_too_much_is_refused_before_it_is_read(make_recipe: MakeRecipe) -> None:
    folder = make_recipe("files: [{path: /etc/a, source: big}]\n")
    with (folder / "big").open("wb") as big:
        big.truncate(1 << 40)
    assert [f["code"] for f in findings_of(folder)] == ["file_too_large"]
    with (folder / "appliance.yaml").open("wb") as big:
        big.truncate(1 << 30)
    assert [f["code"] for f in findings_of(folder)] == ["file_too_large"]


def test_a_bomb_of_aliases_is_refused(make_recipe: MakeRecipe) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]" for n in range(1, 12)]
    assert [f["code"] for f in findings_of(make_recipe("\n".join(lines)))] == ["alias_bomb"]


@pytest.mark.parametrize("text", ["", "- a", "a: [", "\x00", "!!python/object/apply:os.system [id]", "5"])
def test_what_is_no_recipe_at_all(make_recipe: MakeRecipe, text: str) -> None:
    assert findings_of(make_recipe(head=text))


def test_a_folder_without_a_recipe(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(NotFound) as caught:
            load(path)
        assert caught.value.code == "appliance_not_found"


def test_the_version_comes_from_the_package_in_the_lock(make_recipe: MakeRecipe) -> None:
    head = HEAD.replace("'1.0'", "{from_package: nginx}")
    recipe = load(make_recipe(head=head))
    assert recipe.version == FromPackage("nginx")
    assert recipe.version_with({"nginx": "1.22.1-9+deb12u10"}) == "1.22.1"
    with pytest.raises(InvalidInput, match="not in its image"):
        recipe.version_with({})


@pytest.mark.parametrize(
    ("version", "upstream"),
    [("5:7.0.15-1~deb12u10", "7.0.15"), ("2.42.0+ds-5+deb12u1", "2.42.0"), ("2.0.11-1.2", "2.0.11"),
     ("2.8.2+ds1", "2.8.2"), ("8.0.1+dfsg1-1~bpo12+1", "8.0.1"), ("15.20-0+deb12u1", "15.20"),
     ("1.0", "1.0"), ("1.2.3-rc1-1", "1.2.3-rc1"), ("+ds", "+ds")],
)  # fmt: skip
def test_upstream_versions(version: str, upstream: str) -> None:
    assert upstream_version(version) == upstream


def test_the_digest_is_of_what_is_built(make_recipe: MakeRecipe) -> None:
    text = "files: [{path: /etc/a, source: a}]\n"
    before = load(make_recipe(text, a="1")).digest
    assert load(make_recipe(text + "# a comment\n", a="1")).digest == before
    assert load(make_recipe(text, a="2")).digest != before
    assert load(make_recipe(text + "cloud_init: false\n", a="1")).digest != before


def test_findings_travel_as_json(make_recipe: MakeRecipe) -> None:
    assert json.dumps(findings_of(make_recipe("x: 1\n")))
