"""Whatever stands in a recipe or in an original: findings or a typed error, and nothing beside the folder."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from iceshelves.appliances import import_original, lint, load
from iceshelves.appliances.schema import schema
from iceshelves.appliances.secrets import secret_findings
from iceshelves.core.errors import IceShelvesError, InvalidInput

WORDS = st.sampled_from([
    "a", "", "debian", "bookworm", "apt", "install", "/etc/a", "../x", "/a/../b", "files/a", "nginx", "5s",
    "dump", "copy", "remove", "cloud-init", "post-files", "echo a\nsystemctl enable b", "128MB", "container",
    "{{ image.release }}", "{% if image.x %}", "A_PASSWORD", "0644", "b64", "gz+b64",
    "#cloud-config\nusers: 5",
])  # fmt: skip
LEAVES = st.one_of(
    WORDS, st.integers(), st.booleans(), st.none(), st.floats(), st.dates(), st.binary(max_size=3)
)
IMAGE_KEYS = [
    "image", "distribution", "release", "source", "downloader", "packages", "manager", "sets", "action",
    "files", "generator", "path", "content", "pongo", "mode", "uid", "actions", "trigger", "targets",
    "releases", "types", "variants", "repositories",
]  # fmt: skip
CONFIG_KEYS = [
    "config", "cloud-init.user-data", "post_files", "packages", "users", "name", "system", "groups",
    "write_files", "path", "content", "encoding", "append", "permissions", "owner", "runcmd", "source",
    "limits.cpu", "chpasswd",
]  # fmt: skip
IDENTITY_KEYS = [
    "name", "version", "base", "distribution", "release", "types", "architectures", "ports", "port",
    "requirements", "min_cpu", "environment", "default", "healthcheck", "command", "cloud_init",
]  # fmt: skip
OUR_KEYS = [
    *schema()["properties"],
    "path", "content", "source", "mode", "owner", "run", "enable", "port", "default", "secret",
    "from_package", "devices", "size", "release",
]  # fmt: skip
ABOUT_SECRETS = {"default_password", "authorized_keys", "private_key", "password_hash", "password_in_url"}


def documents(keys: list[str]) -> st.SearchStrategy[Any]:
    names = st.one_of(st.sampled_from(keys), LEAVES.filter(lambda leaf: leaf == leaf))
    return st.recursive(
        LEAVES,
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=5)),
        max_leaves=25,
    )


def mappings(keys: list[str], fixed: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    drawn = st.dictionaries(st.sampled_from(keys), documents(keys), max_size=8)
    return st.one_of(
        drawn, drawn.map(lambda values: {**values, **fixed}), drawn.map(lambda v: {**fixed, **v})
    )


NEEDED = {"name": "sample", "version": "1", "description": "d",
          "base": {"distribution": "debian", "release": "bookworm"}}  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(mappings(OUR_KEYS, NEEDED))
def test_lint_never_fails_and_agrees_with_load(document: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "appliance.yaml").write_text(yaml.safe_dump(document))
        if any(finding.level == "error" and finding.code not in ABOUT_SECRETS for finding in lint(folder)):
            with pytest.raises(InvalidInput, match=r"appliance\.yaml, line"):
                load(folder)
        else:
            load(folder)


@settings(max_examples=100, deadline=None)
@given(
    mappings(IDENTITY_KEYS, NEEDED),
    mappings(IMAGE_KEYS, {"packages": {"manager": "apt"}}),
    mappings(CONFIG_KEYS, {}),
    documents(CONFIG_KEYS),
    st.booleans(),
)
def test_an_import_makes_a_recipe_or_nothing(
    identity: Any, image: Any, config: dict[str, Any], user_data: Any, first: bool
) -> None:
    with tempfile.TemporaryDirectory() as place:
        original, made = Path(place) / "original", Path(place) / "made"
        original.mkdir()
        (original / "appliance.yaml").write_text(yaml.safe_dump(identity))
        if first:
            (original / "image.yaml").write_text(yaml.safe_dump(image))
        else:
            nested = {"cloud-init.user-data": "#cloud-config\n" + yaml.safe_dump(user_data)}
            (original / "config.yaml").write_text(yaml.safe_dump({"config": nested, **config}))
        try:
            import_original(original, made)
        except IceShelvesError:
            assert [path.name for path in Path(place).iterdir()] == ["original"]
        else:
            load(made)
            assert {path.name for path in Path(place).iterdir()} == {"original", "made"}


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_text_can_be_searched_for_secrets(text: str) -> None:
    assert all(finding.line <= text.count("\n") + 100 for finding in secret_findings(text, "a"))
