"""Typed parameters: conversion, bounds, secrets, and every problem at once."""

from __future__ import annotations

from typing import Any

import pytest

from iceshelves.core.errors import InvalidInput
from iceshelves.core.secret import REDACTED, Secret
from iceshelves.eggs import resolve_parameters

DEFINITIONS: dict[str, Any] = {
    "port": {"type": "integer", "default": 80, "minimum": 1, "maximum": 65535},
    "ratio": {"type": "number", "maximum": 1},
    "debug": {"type": "boolean"},
    "size": {"type": "choice", "choices": ["small", "large"], "default": "small"},
    "users": {"type": "list", "pattern": "[a-z]+", "max_length": 3},
    "title": {"required": True, "min_length": 2, "max_length": 10},
    "token": {"secret": True},
}


def resolve(make_egg: Any, **given: object) -> Any:
    return resolve_parameters(make_egg(rendering="jinja", parameters=DEFINITIONS), given)


def test_defaults_and_empties(make_egg: Any) -> None:
    assert resolve(make_egg, title="ok").values == {
        "port": 80, "ratio": None, "debug": False, "size": "small", "users": [], "title": "ok", "token": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("port", "8080", 8080),
        ("ratio", "0.5", 0.5),
        ("debug", "yes", True),
        ("debug", "off", False),
        ("users", "ann, bob", ["ann", "bob"]),
        ("users", '["ann"]', ["ann"]),
        ("users", [], []),
        ("title", "日本語", "日本語"),
        ("token", Secret("abcd"), "abcd"),
    ],
)
def test_conversion(make_egg: Any, name: str, given: object, value: object) -> None:
    assert resolve(make_egg, **{"title": "ok", name: given}).values[name] == value


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("port", "80.5"), ("port", 0), ("port", 70000), ("port", True), ("port", None), ("ratio", "nan"),
        ("ratio", "2"), ("ratio", "x"), ("debug", "maybe"), ("debug", 1), ("size", "medium"),
        ("users", "ann,b0b"), ("users", "a,b,c,d"), ("users", '["a"'), ("users", ["ann\n"]), ("users", 3),
        ("title", "x"), ("title", "x" * 11), ("title", 7), ("title", "a\0b"), ("title", "ab\ud800"),
    ],
)  # fmt: skip
def test_refusals(make_egg: Any, name: str, given: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        resolve(make_egg, **{"title": "ok", name: given})
    assert list(caught.value.details["fields"]) == [name]


def test_all_problems_at_once_without_the_values(make_egg: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        resolve(make_egg, prot="80", port="hunter2", token=["hunter2"])
    fields = caught.value.details["fields"]
    assert set(fields) == {"prot", "port", "token", "title"}
    assert "did you mean port?" in fields["prot"]
    assert "hunter2" not in str(caught.value.to_json())


def test_secrets_are_listed_for_redaction_and_shown_nowhere(make_egg: Any) -> None:
    parameters = resolve(make_egg, title="ok", token="hunter2")
    assert parameters.secrets == ["hunter2"]
    assert parameters.redacted()["token"] == REDACTED
    assert "hunter2" not in repr(parameters)


def test_a_pattern_takes_linear_time(make_egg: Any) -> None:
    egg = make_egg(rendering="jinja", parameters={"x": {"pattern": "(a+)+b"}})
    with pytest.raises(InvalidInput):
        resolve_parameters(egg, {"x": "a" * 50_000})


@pytest.mark.parametrize(
    ("definition", "field"),
    [
        ({"type": "text"}, "parameters.p.type"),
        ({"type": "choice"}, "parameters.p.choices"),
        ({"choices": ["a"]}, "parameters.p.choices"),
        ({"pattern": "("}, "parameters.p.pattern"),
        ({"pattern": "(?=a)"}, "parameters.p.pattern"),
        ({"type": "integer", "default": "x"}, "parameters.p.default"),
        ({"type": "integer", "minimum": 5, "default": 1}, "parameters.p.default"),
        ({"type": "integer", "minimum": True}, "parameters.p.minimum"),
        ({"required": "yes"}, "parameters.p.required"),
        ({"min_length": 1.5}, "parameters.p.min_length"),
        ("string", "parameters.p"),
    ],
)
def test_bad_definitions_keep_an_egg_from_loading(make_egg: Any, definition: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        make_egg(parameters={"p": definition})
    assert [finding["field"] for finding in caught.value.details["findings"]] == [field]


@pytest.mark.parametrize("name", ["Port", "1st", "a-b", "instance", "__class__", "range", ""])
def test_names_that_templates_cannot_use(make_egg: Any, name: str) -> None:
    with pytest.raises(InvalidInput):
        make_egg(parameters={name: {}})
