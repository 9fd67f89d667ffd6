"""One value for one parameter: converted from what was typed and held against its definition."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, Final

from iceshelves.core.bounded import load_json
from iceshelves.core.errors import InvalidInput
from iceshelves.core.secret import Secret
from iceshelves.eggs.model import Parameter

_TRUE: Final = frozenset({"true", "yes", "on", "1"})
_FALSE: Final = frozenset({"false", "no", "off", "0"})
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,18}")
_MAX_TEXT: Final = 256 * 1024


class BadValue(ValueError):
    """The value does not fit the parameter; the text continues a sentence that starts with its name."""


def convert(parameter: Parameter, given: object) -> Any:
    """``given`` as a value of ``parameter``; text is converted as from a command line.  Raises BadValue."""
    plain = given.reveal() if isinstance(given, Secret) else given
    value = _CONVERTERS[parameter.type](plain)
    _check_bounds(parameter, value)
    return value


def empty(parameter: Parameter) -> Any:
    """What an optional parameter is when it has no default and nobody set it."""
    return {"string": "", "choice": "", "boolean": False, "list": []}.get(parameter.type)


def pattern_fits(pattern: str, text: str) -> bool:
    """Whether ``pattern`` matches all of ``text``, in linear time whatever the pattern.

    Raises ``ValueError`` when the pattern is not a regular expression (without look-around and
    back-references, which linear time excludes).
    """
    import jsonschema_rs  # here, because it costs 20 ms and few eggs have patterns

    schema = {"pattern": f"^(?:{pattern})$"}
    options = jsonschema_rs.RegexOptions(size_limit=1024 * 1024)
    return bool(jsonschema_rs.Draft7Validator(schema, pattern_options=options).is_valid(text))


def _text(given: object) -> str:
    if not isinstance(given, str):
        raise BadValue("must be text")
    if len(given) > _MAX_TEXT:
        raise BadValue(f"is longer than {_MAX_TEXT} characters")
    if "\0" in given or any("\ud800" <= character <= "\udfff" for character in given):
        raise BadValue("holds a character that no text file can")
    return given


def _integer(given: object) -> int:
    if isinstance(given, str) and _INTEGER.fullmatch(given.strip()):
        return int(given)
    if isinstance(given, int) and not isinstance(given, bool):
        return given
    raise BadValue("must be a whole number")


def _number(given: object) -> float:
    if isinstance(given, int | float | str) and not isinstance(given, bool):
        try:
            number = float(given)
        except (ValueError, OverflowError):
            raise BadValue("must be a number") from None
        if math.isfinite(number):
            return number
    raise BadValue("must be a number")


def _boolean(given: object) -> bool:
    if isinstance(given, bool):
        return given
    if isinstance(given, str) and given.strip().lower() in _TRUE | _FALSE:
        return given.strip().lower() in _TRUE
    raise BadValue("must be true or false")


def _list(given: object) -> list[str]:
    entries = given
    if isinstance(given, str):
        entries = _entries(given)
    if not isinstance(entries, list | tuple):
        raise BadValue("must be a list of texts")
    return [_text(entry) for entry in entries]


def _entries(text: str) -> object:
    if not text.lstrip().startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        return load_json(text, source="the list")
    except InvalidInput as error:
        raise BadValue("must be a JSON list, or entries with commas between them") from error


_CONVERTERS: Final[dict[str, Callable[[object], Any]]] = {
    "string": _text,
    "choice": _text,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "list": _list,
}


def _check_bounds(parameter: Parameter, value: Any) -> None:
    if parameter.type == "choice" and value not in parameter.choices:
        raise BadValue(f"must be one of {', '.join(parameter.choices)}")
    if parameter.type in {"integer", "number"}:
        _check_range(parameter, value)
    elif parameter.type in {"string", "list"}:
        _check_length(parameter, len(value))
    if parameter.pattern is not None and parameter.type in {"string", "list"}:
        for entry in [value] if isinstance(value, str) else value:
            if not pattern_fits(parameter.pattern, entry):
                raise BadValue(f"must match {parameter.pattern}")


def _check_range(parameter: Parameter, value: float) -> None:
    if parameter.minimum is not None and value < parameter.minimum:
        raise BadValue(f"must be at least {parameter.minimum:g}")
    if parameter.maximum is not None and value > parameter.maximum:
        raise BadValue(f"must be at most {parameter.maximum:g}")


def _check_length(parameter: Parameter, length: int) -> None:
    unit = "entries" if parameter.type == "list" else "characters"
    if parameter.min_length is not None and length < parameter.min_length:
        raise BadValue(f"must have at least {parameter.min_length} {unit}")
    if parameter.max_length is not None and length > parameter.max_length:
        raise BadValue(f"must have at most {parameter.max_length} {unit}")
