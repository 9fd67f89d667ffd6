"""Reading YAML and JSON that somebody else wrote: bounded in size, depth and number of nodes, with positions.

YAML is read with PyYAML's safe C loader because that is what cloud-init uses: ``yes`` and ``0644`` mean here
what they will mean in the guest (YAML 1.1).  PyYAML alone keeps the last of two equal keys and lets a few
aliases grow into gigabytes; so the event stream, which needs no recursion, is measured first and only a
document within its bounds is composed.  Aliases count with everything that they stand for.
"""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import yaml

from iceshelves.core import json_scan
from iceshelves.core.errors import InvalidInput

MAX_BYTES: Final = 1024 * 1024
MAX_DEPTH: Final = 64
MAX_NODES: Final = 50_000
_MAX_NUMBER: Final = 128
_MAX_TAGS: Final = 16
_CONVERTED: Final = frozenset(f"tag:yaml.org,2002:{name}" for name in ("int", "float", "timestamp"))
_MERGE: Final = "tag:yaml.org,2002:merge"

KeyPath: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Position:
    """Where something stands in its source: line and column, both from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A key given again in one mapping; ``position`` is that of the later one."""

    path: KeyPath
    position: Position


@dataclass(frozen=True)
class Document:
    """A parsed document with the position of every key and list entry."""

    value: Any
    positions: Mapping[KeyPath, Position]
    duplicates: tuple[Duplicate, ...] = ()

    def position(self, path: KeyPath) -> Position:
        """The position of ``path``, or of its nearest ancestor that has one; at worst the first line."""
        for length in range(len(path), -1, -1):
            found = self.positions.get(path[:length])
            if found is not None:
                return found
        return Position(1, 1)


def load_yaml(
    text: str | bytes,
    *,
    source: str,
    max_bytes: int = MAX_BYTES,
    max_depth: int = MAX_DEPTH,
    max_nodes: int = MAX_NODES,
) -> Any:
    """The value of one YAML document; ``source`` names it in errors.

    Raises :class:`InvalidInput` (``details``: file, line, column) when it is malformed, out of bounds, or
    gives a key twice.
    """
    document = load_yaml_with_lines(
        text, source=source, max_bytes=max_bytes, max_depth=max_depth, max_nodes=max_nodes
    )
    return _without_duplicates(document, source).value


def load_yaml_with_lines(
    text: str | bytes,
    *,
    source: str,
    max_bytes: int = MAX_BYTES,
    max_depth: int = MAX_DEPTH,
    max_nodes: int = MAX_NODES,
) -> Document:
    """Like :func:`load_yaml`, with positions; keys given twice are listed in ``duplicates``, not refused."""
    checked = _decode(text, source, max_bytes)
    loader: yaml.CSafeLoader | None = None
    _refuse_tag_directives(checked, source)
    try:
        _Measure(source, max_depth, max_nodes).check(checked)
        loader = yaml.CSafeLoader(checked)
        root = loader.get_single_node()
        if root is None:
            return Document(None, {})
        _check_scalars(loader, root, source)
        index = _Index(loader)
        index.add(root)
        return Document(loader.construct_document(root), index.positions, tuple(index.duplicates))
    except yaml.YAMLError as error:
        raise _yaml_error(error, checked, source) from error
    finally:
        if loader is not None:
            loader.dispose()


def load_json(
    text: str | bytes,
    *,
    source: str,
    max_bytes: int = MAX_BYTES,
    max_depth: int = MAX_DEPTH,
    max_nodes: int = MAX_NODES,
) -> Any:
    """The value of one JSON document; the same bounds and errors as :func:`load_yaml`."""
    document = load_json_with_lines(
        text, source=source, max_bytes=max_bytes, max_depth=max_depth, max_nodes=max_nodes
    )
    return _without_duplicates(document, source).value


def load_json_with_lines(
    text: str | bytes,
    *,
    source: str,
    max_bytes: int = MAX_BYTES,
    max_depth: int = MAX_DEPTH,
    max_nodes: int = MAX_NODES,
) -> Document:
    """Like :func:`load_json`, with positions; keys given twice are listed in ``duplicates``, not refused."""
    checked = _decode(text, source, max_bytes)
    for offset, depth, count in json_scan.measure(checked):
        if depth > max_depth:
            raise _out_of_bounds(
                source, "too_deep", f"is nested deeper than {max_depth}", _Lines(checked).position(offset)
            )
        if count > max_nodes:
            raise _out_of_bounds(
                source,
                "too_many_nodes",
                f"has more than {max_nodes} values",
                _Lines(checked).position(offset),
            )
    try:
        value = json_scan.parse(checked)
    except json_scan.JsonError as error:
        position = _Lines(checked).position(error.offset)
        raise InvalidInput(
            f"{source}, line {position.line}: {error}.",
            code="json_syntax",
            hint="Look for a missing comma, quote or bracket at or just before that line.",
            details=_details(source, position),
        ) from error
    positions: dict[KeyPath, Position] = {}
    duplicates: list[Duplicate] = []
    lines = _Lines(checked)
    for path, offset in json_scan.keys(checked):
        position = lines.position(offset)
        if path in positions:
            duplicates.append(Duplicate(path, position))
        positions[path] = position
    return Document(value, positions, tuple(duplicates))


class _Lines:
    """Turns character offsets into positions."""

    def __init__(self, text: str) -> None:
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def position(self, offset: int) -> Position:
        line = bisect.bisect_right(self._starts, offset)
        return Position(line, offset - self._starts[line - 1] + 1)


def _decode(text: str | bytes, source: str, max_bytes: int) -> str:
    if len(text) > max_bytes:
        raise InvalidInput(
            f"{source} is larger than {max_bytes} bytes.",
            code="too_large",
            hint="Files of this kind are small; move data elsewhere.",
            details={"file": source, "line": 1},
        )
    try:
        return text.decode() if isinstance(text, bytes) else text.encode().decode()
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InvalidInput(
            f"{source}, line {line}: this is not UTF-8 text.",
            code="not_utf8",
            hint="Save the file as UTF-8.",
            details={"file": source, "line": line},
        ) from error
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"{source} holds half of a surrogate pair, which no UTF-8 text can.",
            code="not_utf8",
            hint="Save the file as UTF-8.",
            details={"file": source, "line": 1},
        ) from error


def _without_duplicates(document: Document, source: str) -> Document:
    if document.duplicates:
        first = document.duplicates[0]
        raise InvalidInput(
            f"{source}, line {first.position.line}: the key {str(first.path[-1])!r} is given twice.",
            code="duplicate_key",
            hint="Keep one of them; only the last would count.",
            details=_details(source, first.position),
        )
    return document


def _details(source: str, position: Position) -> dict[str, Any]:
    return {"file": source, "line": position.line, "column": position.column}


def _out_of_bounds(source: str, code: str, what: str, position: Position) -> InvalidInput:
    return InvalidInput(
        f"{source}, line {position.line}: the document {what}.",
        code=code,
        hint="Split it, or remove what repeats.",
        details=_details(source, position),
    )


def _position(mark: Any) -> Position:
    return Position(mark.line + 1, mark.column + 1)  # PyYAML counts from 0; its C marks have no public type


def _yaml_error(error: yaml.YAMLError, text: str, source: str) -> InvalidInput:
    position = Position(1, 1)
    reason = str(error).splitlines()[0]
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        if mark is not None:
            position = _position(mark)
        reason = error.problem or error.context or reason
    elif isinstance(error, yaml.reader.ReaderError):
        before = text.encode()[: error.position]
        position = Position(before.count(b"\n") + 1, len(before) - before.rfind(b"\n"))
        reason = error.reason
    return InvalidInput(
        f"{source}, line {position.line}: {reason}.",
        code="yaml_syntax",
        hint="Check the indentation, quotes and colons at or just before that line.",
        details=_details(source, position),
    )


@dataclass(slots=True)
class _Extent:
    """How large a node is when every alias in it is written out."""

    size: int = 1
    height: int = 1


@dataclass(slots=True)
class _Measure:
    """Walks the event stream once and refuses what is out of bounds, before anything is built."""

    source: str
    max_depth: int
    max_nodes: int
    anchors: dict[str, _Extent | None] = field(default_factory=dict)  # None: still open
    stack: list[tuple[str | None, _Extent]] = field(default_factory=list)
    documents: int = 0

    def check(self, text: str) -> None:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            position = _position(event.start_mark)
            if isinstance(event, yaml.ScalarEvent):
                self._close(event.anchor, _Extent(), position)
            elif isinstance(event, yaml.AliasEvent):
                self._close(None, self._expanded(event.anchor or "", position), position)
            elif isinstance(event, yaml.CollectionStartEvent):
                self._open(event.anchor, position)
            elif isinstance(event, yaml.CollectionEndEvent):
                anchor, extent = self.stack.pop()
                self._close(anchor, extent, position)
            elif isinstance(event, yaml.DocumentStartEvent):
                self._start_document(position)

    def _start_document(self, position: Position) -> None:
        self.documents += 1
        if self.documents > 1:
            raise InvalidInput(
                f"{self.source}, line {position.line}: a second document starts here.",
                code="yaml_syntax",
                hint="Remove the '---'; only one document is read.",
                details=_details(self.source, position),
            )

    def _open(self, anchor: str | None, position: Position) -> None:
        if len(self.stack) >= self.max_depth:
            raise self._too_deep(position)
        if anchor is not None:
            self.anchors[anchor] = None
        self.stack.append((anchor, _Extent()))

    def _expanded(self, anchor: str, position: Position) -> _Extent:
        if anchor not in self.anchors:
            return _Extent()  # the composer names an undefined alias better than we could
        extent = self.anchors[anchor]
        if extent is None:
            raise _out_of_bounds(
                self.source, "alias_bomb", f"contains itself through the alias *{anchor}", position
            )
        return extent

    def _close(self, anchor: str | None, extent: _Extent, position: Position) -> None:
        if anchor is not None:
            self.anchors[anchor] = extent
        if len(self.stack) + extent.height > self.max_depth + 1:
            raise self._too_deep(position)
        if not self.stack:
            return
        parent = self.stack[-1][1]
        parent.size += extent.size
        parent.height = max(parent.height, extent.height + 1)
        if parent.size > self.max_nodes:
            code = "alias_bomb" if self.anchors else "too_many_nodes"
            raise _out_of_bounds(
                self.source, code, f"has more than {self.max_nodes} values, aliases written out", position
            )

    def _too_deep(self, position: Position) -> InvalidInput:
        return _out_of_bounds(self.source, "too_deep", f"is nested deeper than {self.max_depth}", position)


def _refuse_tag_directives(text: str, source: str) -> None:
    """libyaml compares every ``%TAG`` with all before it; nobody needs more than a few."""
    found = list(itertools.islice(re.finditer(r"^%TAG", text, re.MULTILINE), _MAX_TAGS + 1))
    if len(found) > _MAX_TAGS:
        position = _Lines(text).position(found[-1].start())
        raise _out_of_bounds(source, "too_many_tags", f"has more than {_MAX_TAGS} %TAG directives", position)


def _check_scalars(loader: yaml.CSafeLoader, root: yaml.Node, source: str) -> None:
    """Numbers and dates convert, and in good time: base-60 integers (``1:30:00``) are quadratic."""
    for node in _nodes(root):
        if not isinstance(node, yaml.ScalarNode) or node.tag not in _CONVERTED:
            continue
        if len(node.value) > _MAX_NUMBER:
            raise _out_of_bounds(
                source, "yaml_value", f"has a number of more than {_MAX_NUMBER} digits", _start(node)
            )
        try:
            loader.construct_object(node)
        except (ValueError, OverflowError) as error:  # PyYAML converts 2001-99-99 without a check of its own
            position = _start(node)
            raise InvalidInput(
                f"{source}, line {position.line}: {node.value!r} looks like a number or date, but {error}.",
                code="yaml_value",
                hint="Quote it if it is meant as text.",
                details=_details(source, position),
            ) from error


def _nodes(root: yaml.Node) -> Iterator[yaml.Node]:
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        if isinstance(node, yaml.SequenceNode):
            waiting.extend(node.value)
        elif isinstance(node, yaml.MappingNode):
            waiting.extend(part for pair in node.value for part in pair)


def _start(node: yaml.Node) -> Position:
    return _position(node.start_mark)


class _Index:
    """Finds the position of each key path, and keys given twice, without recursion."""

    def __init__(self, loader: yaml.CSafeLoader) -> None:
        self.positions: dict[KeyPath, Position] = {}
        self.duplicates: list[Duplicate] = []
        self._loader = loader

    def add(self, root: yaml.Node) -> None:
        self.positions[()] = _start(root)
        waiting: list[tuple[KeyPath, yaml.Node]] = [((), root)]
        while waiting:
            path, node = waiting.pop()
            if isinstance(node, yaml.SequenceNode):
                for index, child in enumerate(node.value):
                    self.positions[(*path, index)] = _start(child)
                    waiting.append(((*path, index), child))
            elif isinstance(node, yaml.MappingNode):
                waiting.extend(self._entries(path, node))

    def _entries(self, path: KeyPath, node: yaml.MappingNode) -> Iterator[tuple[KeyPath, yaml.Node]]:
        seen: set[Any] = set()
        for key_node, value in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == _MERGE:
                continue
            key = self._loader.construct_object(key_node)
            name: str | int = key if isinstance(key, str | int) else str(key)
            here = (*path, name)
            if key in seen:
                self.duplicates.append(Duplicate(here, _start(key_node)))
            seen.add(key)
            self.positions[here] = _start(key_node)
            yield here, value
