"""Plain data into dataclasses, by their type hints: for programs that must stay small.

The server reads the same dataclasses with pydantic, which also checks the bounds that ``Annotated`` gives.
"""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Mapping
from enum import Enum
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def decode(kind: type[T], value: Any) -> T:
    """``value``, as JSON gives it, as a ``kind``.

    Unknown members are ignored, since a newer peer wrote them, unless the class forbids them in its
    ``__pydantic_config__``.  Raises ``ValueError`` naming the place where something else was expected.
    """
    found: T = _decode(kind, value, kind.__name__)
    return found


def _decode(kind: Any, value: Any, place: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _object(kind, value, place)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _decode(next(each for each in arguments if each is not type(None)), value, place)
    if origin is Literal:
        return _checked(value in arguments, value, place)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(value)
    if origin in (list, tuple):
        _checked(isinstance(value, list | tuple), value, place)
        return origin(_decode(arguments[0], each, f"{place}[{at}]") for at, each in enumerate(value))
    if origin is dict:
        _checked(isinstance(value, dict), value, place)
        return {key: _decode(arguments[1], each, f"{place}.{key}") for key, each in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return _checked(kind is Any or type(value) is kind, value, place)


def _object(kind: Any, value: Any, place: str) -> Any:
    _checked(isinstance(value, Mapping), value, place)
    hints = _hints(kind)
    unknown = set(value).difference(hints)
    if unknown and getattr(kind, "__pydantic_config__", {}).get("extra") == "forbid":
        raise ValueError(f"{place} has unknown members: {', '.join(sorted(unknown))}")
    known = {
        name: _decode(hint, value[name], f"{place}.{name}") for name, hint in hints.items() if name in value
    }
    try:
        return kind(**known)
    except TypeError as error:  # a member without a default is missing
        raise ValueError(f"{place}: {error}") from error


def _checked(ok: bool, value: Any, place: str) -> Any:
    if not ok:
        raise ValueError(f"{place} is {type(value).__name__}, which was not expected there")
    return value


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}
