"""A look at JSON text without building it: its depth, its size, and where its keys are.

The standard library's parser recurses and forgets positions; this one does neither.  It leaves judging the
syntax to that parser, which by then is known to be given nothing deep.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

_TOKEN: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\],:]|[^\s{}\[\],:"]+', re.DOTALL)
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")


class JsonError(ValueError):
    """The text is not JSON; ``offset`` counts characters."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


def measure(text: str) -> Iterator[tuple[int, int, int]]:
    """Yield (offset, depth, values so far) after each token; tolerant of anything that is not JSON."""
    depth = count = 0
    for match in _TOKEN.finditer(text):
        mark = match[0]
        if mark in "{[":
            depth += 1
            count += 1
        elif mark in "}]":
            depth -= 1
        elif mark not in ",:":
            count += 1
        yield match.start(), depth, count


def parse(text: str) -> Any:
    """The value of ``text``.  Strict: no NaN, no infinities, no half surrogate pairs.  Raises JsonError."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise JsonError(error.msg[:1].lower() + error.msg[1:], error.pos) from error
    except ValueError as error:  # an integer of more digits than the interpreter converts
        raise JsonError(str(error), 0) from error
    surrogate = _SURROGATE.search(text)
    if surrogate:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise JsonError("half of a surrogate pair cannot be text", surrogate.start()) from error
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def keys(text: str) -> Iterator[tuple[tuple[str | int, ...], int]]:
    """The path and offset of every key and list entry of *valid* JSON, in order; repeated keys repeat."""
    yield (), _first(text)
    path: list[str | int] = []  # one element for each open container: the key or index that we are at
    kinds: list[str] = []
    expect_key = False
    for match in _TOKEN.finditer(text):
        mark = match[0]
        if mark in "}]":
            path.pop()
            kinds.pop()
            expect_key = False
            continue
        if mark == ",":
            expect_key = kinds[-1] == "{"
            if kinds[-1] == "[":
                path[-1] = int(path[-1]) + 1
            continue
        if mark == ":":
            continue
        if expect_key:
            path[-1] = json.loads(mark)
            expect_key = False
            yield tuple(path), match.start()
            continue
        if kinds and kinds[-1] == "[":
            yield tuple(path), match.start()
        if mark in "{[":
            kinds.append(mark)
            path.append(0 if mark == "[" else "")
            expect_key = mark == "{"


def _first(text: str) -> int:
    return len(text) - len(text.lstrip())
