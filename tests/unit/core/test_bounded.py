"""The bounded loaders: what honest documents give, and that hostile ones are refused, named and placed."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from iceshelves.core.bounded import Position, load_json, load_json_with_lines, load_yaml, load_yaml_with_lines
from iceshelves.core.errors import InvalidInput

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGE_CHAIN = "- &a0 {x: 1}\n" + "".join(f"- &a{n + 1} {{<<: *a{n}}}\n" for n in range(3000))

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(st.characters(codec="utf-8"), max_size=12),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abcxyz", max_size=3), inner, max_size=4)
    ),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        (BOMB, "alias_bomb", 5),
        ("x: 1\na: &a [*a]", "alias_bomb", 2),
        ("[" * 200_000, "too_deep", 1),
        ("- " * 200_000, "too_deep", 1),
        (MERGE_CHAIN, "too_deep", 64),
        ("- x\n" * 60_000, "too_many_nodes", 50_000),
        ("a: 1\nb: 2\na: 3", "duplicate_key", 3),
        ("a: 1\nb: [1, 2\n", "yaml_syntax", 3),
        ("a: 1\n---\nb: 2", "yaml_syntax", 2),
        ("a: ok\nb: \x07", "yaml_syntax", 2),
        ("a: 1\nb: *nowhere", "yaml_syntax", 2),
        ("a: 1\nb: !!python/object/apply:os.system [id]", "yaml_syntax", 2),
        ("? [a, b]\n: c", "yaml_syntax", 1),
        ("a: 1\nwhen: 2026-99-99", "yaml_value", 2),
        ("a: 1" + ":59" * 5000, "yaml_value", 1),
        ("a: \ud800", "not_utf8", 1),
        ("".join(f"%TAG !a{n}! b\n" for n in range(50_000)) + "--- a", "too_many_tags", 17),
    ],
)
def test_yaml_refuses(text: str, code: str, line: int) -> None:
    with pytest.raises(InvalidInput) as caught:
        load_yaml(text, source="egg.yaml")
    assert (caught.value.code, caught.value.details["line"]) == (code, line)
    assert caught.value.details["file"] == "egg.yaml"


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("[" * 200_000, "too_deep", 1),
        ('{"a":' * 200_000, "too_deep", 1),
        ("[\n" + "1,\n" * 60_000 + "1]", "too_many_nodes", 50_001),
        ('{"a": 1,\n "b": 2,\n "a": 3}', "duplicate_key", 3),
        ('{"a": 1,\n b: 2}', "json_syntax", 2),
        ('{"a": 1}\n{"b": 2}', "json_syntax", 2),
        ('{"a": "never closed', "json_syntax", 1),
        ("", "json_syntax", 1),
        ("NaN", "json_syntax", 1),
        ("9" * 10_000, "json_syntax", 1),
        ('["\\ud800"]', "json_syntax", 1),
    ],
)
def test_json_refuses(text: str, code: str, line: int) -> None:
    with pytest.raises(InvalidInput) as caught:
        load_json(text, source="m.json")
    assert (caught.value.code, caught.value.details["line"]) == (code, line)


@pytest.mark.parametrize("load", [load_yaml, load_json])
def test_size_and_encoding_are_checked_first(load: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        load(b" " * 2000, source="x", max_bytes=1000)
    assert caught.value.code == "too_large"
    with pytest.raises(InvalidInput) as caught:
        load(b'"one"\n"\xff"', source="x")
    assert (caught.value.code, caught.value.details["line"]) == ("not_utf8", 2)


def test_yaml_means_what_cloud_init_means() -> None:
    text = "answer: yes\nmode: 0644\nempty:\nshared: &s {k: v}\ncopy: *s\nmerged: {<<: *s, l: w}\n"
    assert load_yaml(text, source="x") == yaml.safe_load(text)


def test_yaml_positions_reach_through_lists_aliases_and_merges() -> None:
    document = load_yaml_with_lines(
        "a:\n  - x: 1\n  - *b\n".replace("*b", "&b {y: 2}") + "c: *b\n", source="x"
    )
    assert document.position(("a", 0, "x")) == Position(2, 5)
    assert document.position(("c", "y")) == Position(3, 9)
    assert document.position(("c", "y", "unknown")) == Position(3, 9)
    assert document.position(("nothing",)) == Position(1, 1)


def test_duplicates_are_collected_for_lint() -> None:
    document = load_yaml_with_lines("a: 1\nb: {c: 1,\n  c: 2}\na: 3\n", source="x")
    assert sorted((d.path, d.position.line) for d in document.duplicates) == [(("a",), 4), (("b", "c"), 3)]
    assert document.value == {"a": 3, "b": {"c": 2}}


def test_json_positions() -> None:
    document = load_json_with_lines('{\n "a": [1, {"b": [],\n  "c": "x,\\"]{"}],\n "d": {}}', source="x")
    places = {path: (p.line, p.column) for path, p in document.positions.items()}
    assert places[("a",)] == (2, 2)
    assert places[("a", 1)] == (2, 11)
    assert places[("a", 1, "c")] == (3, 3)
    assert places[("d",)] == (4, 2)


@given(plain)
def test_json_agrees_with_the_standard_library(value: Any) -> None:
    text = json.dumps(value, indent=1)
    document = load_json_with_lines(text, source="x")
    assert document.value == value
    assert all(_get(value, path) is not _MISSING for path in document.positions)


@given(plain)
def test_yaml_agrees_with_pyyaml(value: Any) -> None:
    text = yaml.safe_dump(value, allow_unicode=True)
    document = load_yaml_with_lines(text, source="x")
    assert document.value == yaml.safe_load(text)
    assert all(_get(document.value, path) is not _MISSING for path in document.positions)


@given(st.text("[]{}:,-&*<'\"\\ \n#!?|>a1", max_size=60) | st.binary(max_size=60))
def test_nothing_but_invalid_input_is_raised(text: str | bytes) -> None:
    for load in (load_yaml_with_lines, load_json_with_lines):
        with contextlib.suppress(InvalidInput):  # and nothing else
            assert load(text, source="x", max_depth=8).positions is not None


_MISSING = object()


def _get(value: Any, path: tuple[str | int, ...]) -> Any:
    for part in path:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return _MISSING
    return value
