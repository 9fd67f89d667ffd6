#!/usr/bin/env python3
"""Write docs/reference/errors.md from the places that raise errors, so that every code has its paragraph.

Usage: scripts/error_reference.py [--check]
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from iceshelves.core import errors
from iceshelves.server.problems import status_of

ROOT: Final = Path(__file__).parent.parent
PAGE: Final = ROOT / "docs" / "reference" / "errors.md"
SOURCE: Final = ROOT / "src" / "iceshelves"
CODE: Final = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
FINDINGS: Final = {"Finding", "_add", "_finding"}
LEVELS: Final = {"error", "warning", "hint"}
INTRODUCTION: Final = """\
# Errors

<!-- Made by scripts/error_reference.py from the places that raise them; change those, then run it. -->

Every error has a stable code, one line, and where there is something to be done about it a hint. The API
answers with [problem details](api.md#errors), the command line prints the same three, and an operation that
failed keeps them. `…` stands for what differs from case to case.

Codes that are marked *finding* come from `iceshelves egg lint`, with a file and a line; an egg with a finding
of level error is not imported.
"""


@dataclass(frozen=True, order=True)
class Place:
    """One way in which a code comes about."""

    kind: str
    message: str
    hint: str


def main() -> int:
    """Write the page, or with ``--check`` say whether it is current."""
    page = render(collect())
    if "--check" in sys.argv[1:]:
        return 0 if PAGE.read_text() == page else 1
    PAGE.write_text(page)
    return 0


def collect() -> dict[str, set[Place]]:
    """Every code, with the places that give it."""
    found: dict[str, set[Place]] = defaultdict(set)
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        helpers = dict(_helpers(tree))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                for code, place in _called(node, helpers):
                    found[code].add(place)
            elif isinstance(node, ast.ClassDef):
                for code, place in _class(node):
                    found[code].add(place)
    return found


def render(found: Mapping[str, set[Place]]) -> str:
    """The page."""
    parts = [INTRODUCTION]
    for code in sorted(found):
        parts.append(f"\n## {code}\n")
        telling = {place for place in found[code] if re.search("[a-z]", place.message)}
        for place in sorted(telling or found[code]):
            parts.append(f"\n*{place.kind}*: {place.message}\n")
            if place.hint:
                parts.append(f"Hint: {place.hint}\n")
    return "".join(parts)


def _helpers(tree: ast.Module) -> Iterator[tuple[str, list[str]]]:
    """Functions of a module that take a code, with the names of their parameters."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            names = [argument.arg for argument in node.args.args if argument.arg not in ("self", "cls")]
            if "code" in names:
                yield node.name, names


def _called(node: ast.Call, helpers: Mapping[str, list[str]]) -> Iterator[tuple[str, Place]]:
    name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
    given = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
    values = [_text(argument) for argument in node.args]
    if name in FINDINGS and len(values) > 2 and values[0] in LEVELS:
        if CODE.fullmatch(values[1]):
            yield values[1], Place(f"finding, {values[0]}", values[2], _text(given.get("hint")))
        return
    names = helpers.get(name, ["message"])
    arguments = dict(zip(names, values, strict=False)) | {key: _text(value) for key, value in given.items()}
    code = arguments.get("code", "")
    if CODE.fullmatch(code) and ("code" in given or name in helpers):
        message = arguments.get("message") or arguments.get("what") or "…"
        yield code, Place(_kind(name), message, arguments.get("hint", ""))


def _class(node: ast.ClassDef) -> Iterator[tuple[str, Place]]:
    for statement in node.body:
        if not isinstance(statement, ast.Assign | ast.AnnAssign):
            continue
        target = statement.target if isinstance(statement, ast.AnnAssign) else statement.targets[0]
        if isinstance(target, ast.Name) and target.id == "default_code":
            words = (ast.get_docstring(node) or "").split("\n\n")[0].replace("\n", " ")
            base = node.bases[0].id if node.bases and isinstance(node.bases[0], ast.Name) else ""
            own = node.name if hasattr(errors, node.name) else base
            yield _text(statement.value), Place(_kind(own), re.sub(" +", " ", words), "")


def _kind(name: str) -> str:
    kind = getattr(errors, name, None)
    if (
        isinstance(kind, type)
        and issubclass(kind, errors.IceShelvesError)
        and kind.__name__ != "IceShelvesError"
    ):
        return f"{name}, status {status_of(kind('x'))}"
    return "error"


def _text(node: ast.expr | None) -> str:
    """A constant or formatted text, with what differs left out."""
    if isinstance(node, ast.Constant):
        return str(node.value) if node.value is not None else ""
    if isinstance(node, ast.JoinedStr):
        parts = (str(v.value) if isinstance(v, ast.Constant) else "…" for v in node.values)
        return re.sub("…+", "…", "".join(parts))
    return ""


if __name__ == "__main__":
    sys.exit(main())
