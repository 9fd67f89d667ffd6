"""Entries as a tree of inodes: checked, with hard links resolved, in an order that depends on names alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from iceshelves.images.squashfs.entries import (
    ROOT,
    BlockDevice,
    CharacterDevice,
    Directory,
    Entry,
    HardLink,
    Symlink,
    encoded,
    unpackable,
)

_MAX_NAME: Final = 255
_MAX_TARGET: Final = 4095
_MAX_ID: Final = 2**32 - 2  # the last one means "unchanged" to chown(2)
_MAX_TIME: Final = 2**32 - 1
_MAX_MAJOR: Final = 2**12 - 1
_MAX_MINOR: Final = 2**20 - 1


@dataclass(slots=True, eq=False)
class Node:
    """One inode.  ``children`` are by name, and may hold one inode under several names."""

    entry: Entry
    parent: Node | None
    children: dict[bytes, Node] = field(default_factory=dict)
    number: int = 0
    links: int = 1

    @property
    def is_directory(self) -> bool:
        """Whether it can have children."""
        return isinstance(self.entry.kind, Directory)


@dataclass(frozen=True, slots=True)
class Tree:
    """All inodes: directories before what is below them, and all others in the order of their directories."""

    directories: tuple[Node, ...]
    others: tuple[Node, ...]

    @property
    def root(self) -> Node:
        """The directory that has no parent."""
        return self.directories[0]

    @property
    def inodes(self) -> int:
        """How many there are."""
        return len(self.directories) + len(self.others)


def build(entries: Iterable[Entry]) -> Tree:
    """The tree of ``entries``, in any order; a root that is not among them has mode 0755 and owner 0.

    Raises :class:`InvalidInput`: names given twice, without a directory, or not storable; links to nothing.
    """
    by_path: dict[str, Entry] = {}
    for entry in entries:
        if entry.path in by_path:
            raise unpackable(entry.path, "is there twice")
        by_path[_checked(entry).path] = entry
    root = Node(by_path.pop(ROOT, Entry(ROOT, Directory())), None)
    if not root.is_directory:
        raise unpackable(ROOT, "is not a directory")
    _grow(root, by_path)
    return _numbered(root)


def _grow(root: Node, by_path: dict[str, Entry]) -> None:
    nodes: dict[str, Node] = {"": root}
    links: list[tuple[Node, bytes, Entry, HardLink]] = []
    for path in sorted(by_path):  # a directory's path is the beginning of its children's, so it comes first
        entry = by_path[path]
        above, _, own = path.rpartition("/")
        parent = nodes.get(above)
        if parent is None or not parent.is_directory:
            raise unpackable(path, "is in a directory that was not given")
        if isinstance(entry.kind, HardLink):
            links.append((parent, encoded(own), entry, entry.kind))
        else:
            nodes[path] = parent.children[encoded(own)] = Node(entry, parent)
    for parent, name, entry, link in links:
        target = nodes.get(link.to)
        if target is None or target.is_directory:
            raise unpackable(entry.path, f"is a hard link to {link.to[:200]}, which is no file")
        parent.children[name] = target
        target.links += 1


def _numbered(root: Node) -> Tree:
    """Sort every directory and number the inodes: children one after the other, as listings want them."""
    root.number = numbers = 1
    directories: list[Node] = []
    others: list[Node] = []
    waiting = [root]
    while waiting:
        directory = waiting.pop()
        directories.append(directory)
        directory.children = dict(sorted(directory.children.items()))
        below: list[Node] = []
        for child in directory.children.values():
            if child.number:
                continue  # a further name of what was counted already
            numbers += 1
            child.number = numbers
            (below if child.is_directory else others).append(child)
        directory.links = 2 + len(below)
        waiting.extend(reversed(below))
    return Tree(tuple(directories), tuple(others))


def _checked(entry: Entry) -> Entry:
    problem = next(_problems(entry), None)
    if problem is not None:
        raise unpackable(entry.path, problem)
    return entry


def _problems(entry: Entry) -> Iterator[str]:
    if entry.path != ROOT:
        if not entry.path.startswith("/"):
            yield "has no absolute path"
        for name in entry.path.split("/")[1:]:
            if name in {"", ".", ".."} or "\0" in name:
                yield "has an empty or impossible part in its path"
            if len(encoded(name)) > _MAX_NAME:
                yield f"has a name of more than {_MAX_NAME} bytes"
    if not 0 <= entry.mode <= 0o7777:
        yield "has a mode of more than permission bits"
    if not (0 <= entry.uid <= _MAX_ID and 0 <= entry.gid <= _MAX_ID):
        yield "has an owner outside of the 32 bit numbers"
    if not 0 <= entry.mtime <= _MAX_TIME:
        yield "was changed before 1970 or after 2106"
    match entry.kind:
        case Symlink(target) if not 0 < len(encoded(target)) <= _MAX_TARGET or "\0" in target:
            yield f"points to nothing, or to a path of more than {_MAX_TARGET} bytes"
        case BlockDevice(major, minor) | CharacterDevice(major, minor) if not (
            0 <= major <= _MAX_MAJOR and 0 <= minor <= _MAX_MINOR
        ):
            yield "is a device with an impossible number"
        case _:
            return
