"""The part of distrobuilder's template language (Pongo2) that recipes use: values of the image, and ``if``.

Source of the rules: distrobuilder, doc/reference/generators and image: only ``image.*`` is in scope.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

_TOKEN: Final = re.compile(r"\{\{(.{0,500}?)\}\}|\{%-?(.{0,500}?)-?%\}|\{#.{0,2000}?#\}", re.DOTALL)
_VALUE: Final = re.compile(r"\s*image\.([a-z_]+)\s*((?:\|\s*[a-z]+\s*)*)")
_TEST: Final = re.compile(r"\s*(if|elif)\s+image\.([a-z_]+)\s*(==|!=)\s*(?:\"([^\"]*)\"|'([^']*)')\s*")
_FILTERS: Final[Mapping[str, Callable[[str], str]]] = {
    "capfirst": lambda text: text[:1].upper() + text[1:],
    "lower": str.lower,
    "upper": str.upper,
    "title": str.title,
}


class UnknownTemplate(ValueError):
    """The text uses something of the language that is not understood here; the message says what."""


def rendered(text: str, image: Mapping[str, str]) -> str:
    """``text`` with the values of ``image`` in place.  Raises :class:`UnknownTemplate`."""
    shown: list[bool] = []  # for each open `if`: whether its present branch is shown
    chosen: list[bool] = []  # … and whether one of its branches was
    parts: list[str] = []
    for literal, expression, tag in _tokens(text):
        if all(shown):
            parts.append(literal)
            if expression is not None:
                parts.append(_value(expression, image))
        if tag is not None:
            _enter(tag, image, shown, chosen)
    if shown:
        raise UnknownTemplate("an if without endif")
    return "".join(parts)


def _tokens(text: str) -> Iterator[tuple[str, str | None, str | None]]:
    """Each piece of plain text with the expression or the tag that follows it."""
    end = 0
    for match in _TOKEN.finditer(text):
        yield text[end : match.start()], match[1], match[2]
        end = match.end()
    yield text[end:], None, None


def _value(expression: str, image: Mapping[str, str]) -> str:
    match = _VALUE.fullmatch(expression)
    if match is None or match[1] not in image:
        raise UnknownTemplate(f"{{{{{expression[:60]}}}}}")
    value = image[match[1]]
    for name in re.findall(r"[a-z]+", match[2]):
        if name not in _FILTERS:
            raise UnknownTemplate(f"the filter {name}")
        value = _FILTERS[name](value)
    return value


def _enter(tag: str, image: Mapping[str, str], shown: list[bool], chosen: list[bool]) -> None:
    word = tag.strip()
    if word in {"else", "endif"} or word.startswith("elif "):
        if not shown:
            raise UnknownTemplate(f"{word} without if")
        shown.pop()
        before = chosen.pop()
        if word != "endif":
            branch = not before and (word == "else" or _holds(tag, image))
            shown.append(branch)
            chosen.append(before or branch)
        return
    branch = _holds(tag, image)
    shown.append(branch)
    chosen.append(branch)


def _holds(tag: str, image: Mapping[str, str]) -> bool:
    match = _TEST.fullmatch(tag)
    if match is None or match[2] not in image:
        raise UnknownTemplate(f"{{%{tag[:60]}%}}")
    wanted = match[4] if match[4] is not None else match[5]
    return (image[match[2]] == wanted) == (match[3] == "==")
