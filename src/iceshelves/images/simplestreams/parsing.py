"""Catalogues read from text that somebody else wrote: bounded, and judged member by member.

A damaged product does not hide the others: what is wrong is said, and what is left is returned.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from iceshelves.core import json_scan
from iceshelves.core.errors import InvalidInput
from iceshelves.images.simplestreams.model import Catalogue, Index, Item, Product, Stream, Version
from iceshelves.images.simplestreams.names import COMBINED

#: Bytes of one file; the largest public catalogue has about 10 MB.
MAX_BYTES: Final = 32 * 1024 * 1024
#: What is no longer than this cannot grow into much, so it is not measured before it is parsed.
_SMALL: Final = 1024 * 1024
_MAX_DEPTH: Final = 16
_MAX_VALUES: Final = 2_000_000
_MAX_TEXT: Final = 4096
_DATATYPE: Final = "image-downloads"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in a file that keeps clients from using a part of it; ``where`` is a path within it."""

    where: str
    message: str


def parse_index(data: bytes, source: str) -> tuple[Index, list[Problem]]:
    """The index in ``data``; streams of other data types, which clients skip, are left out.

    Raises :class:`InvalidInput` when it is no JSON object within the bounds; ``source`` names it there.
    """
    reader = _Reader()
    top = _load(data, source)
    reader.expect(top, "", "format", "index:1.0")
    streams = []
    for name, entry in reader.objects(top, "", "index"):
        where = f"index/{name}"
        if entry.get("datatype") != _DATATYPE:
            continue
        products = reader.texts(entry, where, "products")
        streams.append(Stream(name, reader.text(entry, where, "path"), products))
    return Index(tuple(streams)), reader.problems


def parse_catalogue(data: bytes, source: str) -> tuple[Catalogue, list[Problem]]:
    """The catalogue in ``data``.  Raises like :func:`parse_index`."""
    reader = _Reader()
    top = _load(data, source)
    reader.expect(top, "", "format", "products:1.0")
    reader.expect(top, "", "datatype", _DATATYPE)
    found = [_product(reader, key, entry) for key, entry in reader.objects(top, "", "products")]
    return Catalogue(tuple(found)), reader.problems


def _product(reader: _Reader, key: str, entry: Mapping[str, Any]) -> Product:
    aliases = reader.text(entry, key, "aliases", "")
    requirements = entry.get("requirements") or {}
    if not isinstance(requirements, dict) or not all(isinstance(each, str) for each in requirements.values()):
        reader.wrong(f"{key}/requirements", "is not a list of texts by name")
        requirements = {}
    return Product(
        key,
        tuple(aliases.split(",")) if aliases else (),
        reader.text(entry, key, "arch"),
        reader.text(entry, key, "os"),
        reader.text(entry, key, "release"),
        reader.text(entry, key, "variant", ""),
        {name: _version(reader, key, name, each) for name, each in reader.objects(entry, key, "versions")},
        reader.text(entry, key, "version", ""),
        requirements,
    )


def _version(reader: _Reader, product: str, key: str, entry: Mapping[str, Any]) -> Version:
    where = f"{product}/{key}"
    items = {name: _item(reader, where, name, each) for name, each in reader.objects(entry, where, "items")}
    return Version(key, items, reader.text(entry, where, "label", ""))


def _item(reader: _Reader, version: str, key: str, entry: Mapping[str, Any]) -> Item:
    where = f"{version}/{key}"
    reader.no_look_alikes(entry, where)
    size = entry.get("size")
    if type(size) is not int or size < 0:
        reader.wrong(f"{where}/size", "is not a number of bytes")
        size = -1
    combined = {
        root: reader.text(entry, where, member) for root, member in COMBINED.items() if member in entry
    }
    return Item(
        reader.text(entry, where, "ftype"),
        reader.text(entry, where, "path"),
        reader.text(entry, where, "sha256"),
        size,
        combined,
        reader.text(entry, where, "delta_base", "") or None,
    )


_MEMBERS: Final = frozenset({"ftype", "path", "sha256", "size", "delta_base", *COMBINED.values()})


@dataclass(slots=True)
class _Reader:
    problems: list[Problem] = field(default_factory=list)

    def wrong(self, where: str, message: str) -> None:
        self.problems.append(Problem(where[:400], message))

    def expect(self, entry: Mapping[str, Any], where: str, name: str, value: str) -> None:
        if entry.get(name) != value:
            self.wrong(f"{where}/{name}".lstrip("/"), f"is not {value!r}")

    def text(self, entry: Mapping[str, Any], where: str, name: str, default: str | None = None) -> str:
        value = entry.get(name, default)
        if isinstance(value, str) and len(value) <= _MAX_TEXT and value.isprintable():
            return value
        self.wrong(f"{where}/{name}", "is missing" if value is None else "is not a line of text")
        return ""

    def texts(self, entry: Mapping[str, Any], where: str, name: str) -> tuple[str, ...]:
        value = entry.get(name)
        if isinstance(value, list) and all(isinstance(each, str) for each in value):
            return tuple(value)
        self.wrong(f"{where}/{name}", "is not a list of names")
        return ()

    def objects(
        self, entry: Mapping[str, Any], where: str, name: str
    ) -> Iterator[tuple[str, Mapping[str, Any]]]:
        value = entry.get(name)
        if not isinstance(value, dict):
            self.wrong(f"{where}/{name}".lstrip("/"), "is not an object")
            return
        for key, each in value.items():
            if isinstance(each, dict) and key.isprintable() and len(key) <= _MAX_TEXT:
                yield key, each
            else:
                self.wrong(f"{where}/{name}/{key}".lstrip("/"), "is not an object with a plain name")

    def no_look_alikes(self, entry: Mapping[str, Any], where: str) -> None:
        """Go's JSON reader takes ``PATH`` for ``path``; others do not, so such a file says two things."""
        for name in entry:
            if name not in _MEMBERS and name.lower() in _MEMBERS:
                self.wrong(f"{where}/{name}", f"would be read as {name.lower()!r} by some clients")


def _load(data: bytes, source: str) -> dict[str, Any]:
    if len(data) > MAX_BYTES:
        raise _unreadable(source, f"is larger than {MAX_BYTES} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise _unreadable(source, "is not UTF-8 text") from error
    for _, depth, count in json_scan.measure(text) if len(text) > _SMALL else ():
        if depth > _MAX_DEPTH or count > _MAX_VALUES:
            raise _unreadable(source, "is nested too deeply or has too many values")
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except ValueError as error:
        raise _unreadable(source, f"is not JSON: {error}") from error
    except RecursionError as error:
        raise _unreadable(source, "is nested too deeply") from error
    if not isinstance(value, dict):
        raise _unreadable(source, "is not a JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice[:80]!r} is given twice")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _unreadable(source: str, what: str) -> InvalidInput:
    return InvalidInput(
        f"{source} {what}.",
        code="unreadable_catalogue",
        hint="Publish the tree again from its registry; a stranger's tree is not to be used.",
    )
