"""The rules that the schema states, and what breaks them in words of the recipe's author.

``schemas/appliance.schema.json`` is the one place where the structure of a recipe is written down: editors
use it, the reference page is made from it, and nothing is read that it does not accept.
"""

from __future__ import annotations

import difflib
import functools
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from iceshelves.appliances.model import RECIPE
from iceshelves.core.bounded import Document, KeyPath
from iceshelves.core.finding import Finding

SCHEMA_FILE: Final = Path(__file__).with_name("schemas") / "appliance.schema.json"
_MAX_FINDINGS: Final = 100
_KINDS: Final = {
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
}


@functools.cache
def schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of ``appliance.yaml``."""
    # Our own package data, hence without bounds.
    found: dict[str, Any] = json.loads(SCHEMA_FILE.read_bytes())
    return found


def structure_findings(document: Document) -> list[Finding]:
    """Where ``document``, the whole of ``appliance.yaml``, is not what the schema says; in order of lines."""
    findings = [_duplicate(document, duplicate.path) for duplicate in document.duplicates[:_MAX_FINDINGS]]
    errors = itertools.islice(_validator().iter_errors(_plain(document.value)), _MAX_FINDINGS)
    findings += [finding for error in errors for finding in _explained(document, error)]
    return sorted(findings, key=lambda finding: (finding.line, finding.column or 0, finding.message))


@functools.cache
def _validator() -> Any:
    import jsonschema_rs  # here, because it costs 20 ms

    return jsonschema_rs.Draft202012Validator(schema())


def _duplicate(document: Document, path: KeyPath) -> Finding:
    message = f"{str(path[-1])[:80]} is given twice; only the last would count."
    return _finding(document, "duplicate_key", message, path, "Keep one of them.")


def _finding(document: Document, code: str, message: str, path: KeyPath, hint: str | None = None) -> Finding:
    position = document.position(path)
    field = ".".join(map(str, path)) or None
    return Finding("error", code, message, RECIPE, position.line, position.column, field, hint)


def _explained(document: Document, error: Any) -> Iterator[Finding]:
    error = _closest(error)
    path: KeyPath = tuple(error.instance_path)
    kind = type(error.kind).__name__
    node = _schema_node(error.schema_path)
    if kind == "AdditionalProperties":
        known = list(node.get("properties", {}))
        for key in error.kind.unexpected:
            yield _unknown(document, (*path, key), known)
    elif kind == "Required":
        message = f"{_called(path)} needs {error.kind.property}."
        yield _finding(document, "missing_field", message, path)
    elif kind == "Type":
        yield _wrong_type(document, path, error.kind.types)
    else:
        yield _finding(document, "invalid_value", _broken_rule(kind, node, error), path)


def _closest(error: Any) -> Any:
    """Of several alternatives the one whose kind of value was given; else the error itself."""
    branches = [branch for branch in getattr(error.kind, "context", None) or [] if branch]
    nearer = [branch for branch in branches if type(branch[0].kind).__name__ not in {"Type", "Required"}]
    if len(nearer) == 1:
        return nearer[0][0]
    return branches[0][0] if branches and type(error.kind).__name__ == "AnyOf" else error


def _schema_node(path: Sequence[str | int]) -> Mapping[str, Any]:
    """The part of the schema that holds the keyword at the end of ``path``."""
    node: Any = schema()
    for part in path[:-1]:
        node = node[part]
    return node if isinstance(node, dict) else {}


def _called(path: KeyPath) -> str:
    """``path`` in a sentence: ``files 2``, ``base``; people count from 1."""
    if not path:
        return RECIPE
    return " ".join(str(part + 1) if isinstance(part, int) else part for part in path)


def _unknown(document: Document, path: KeyPath, known: Sequence[str]) -> Finding:
    name = str(path[-1])[:80]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {close[0]}?" if close else f"It may have {', '.join(known)}."
    message = f"{_called(path[:-1])} has no field {name!r}."
    return _finding(document, "unknown_field", message, path, hint)


def _wrong_type(document: Document, path: KeyPath, types: Sequence[str]) -> Finding:
    value = _value(document, path)
    wanted = " or ".join(_KINDS[kind] for kind in types)
    hint = None
    if "string" in types and value is not None and not isinstance(value, list | dict):
        hint = "YAML reads it as something else than text; write it in quotes."
    return _finding(document, "wrong_type", f"{_called(path)} must be {wanted}.", path, hint)


def _broken_rule(kind: str, node: Mapping[str, Any], error: Any) -> str:
    if kind == "Pattern" and "patternErrorMessage" in node:
        return str(node["patternErrorMessage"])
    if "errorMessage" in node:
        return str(node["errorMessage"])
    if kind == "Enum":
        return f"This must be one of {', '.join(node['enum'])}."
    if kind in {"Minimum", "Maximum"}:
        return f"This must be a number from {node['minimum']} to {node['maximum']}."
    if kind in {"MinLength", "MaxLength"}:
        return f"This must have {node.get('minLength', 0)} to {node['maxLength']} characters."
    if kind in {"MinItems", "MaxItems"}:
        return f"This must be a list of {node.get('minItems', 0)} to {node['maxItems']} entries."
    if kind == "UniqueItems":
        return "An entry of this list is given twice."
    if kind == "MaxProperties":
        return f"This may have {node['maxProperties']} entries."
    return f"This is not allowed here: {error.message[:200]}."


def _value(document: Document, path: KeyPath) -> Any:
    value = document.value
    for part in path:
        value = value[int(part)] if isinstance(value, list) else value.get(part)
    return value


def _plain(value: Any) -> Any:
    """``value`` as JSON knows it; dates and the like become null, which is right nowhere.

    Its depth is bounded by the loader.
    """
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return value if abs(value) < 2**63 else None
    return value if isinstance(value, str | bool | float) else None
