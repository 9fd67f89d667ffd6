"""What verifying remembers of a registry, so that the next time it reads only what has changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from sqlite3 import Connection
from typing import NamedTuple


class Stamp(NamedTuple):
    """What changes when a file does."""

    size: int
    mtime_ns: int
    inode: int


@dataclass
class Memory:
    """Files that were found good, by name; and what was computed from contents, by their hashes.

    The latter holds for ever: a metadata and a root file make a fingerprint, a delta leads from one image to
    another.
    """

    good: dict[str, Stamp] = field(default_factory=dict)
    combined: dict[tuple[str, str], str] = field(default_factory=dict)


def recall(connection: Connection) -> Memory:
    """What was remembered."""
    good = connection.execute("SELECT name, size, mtime_ns, inode FROM good")
    combined = connection.execute("SELECT metadata, root, sha256 FROM combined")
    return Memory({name: Stamp(*stamp) for name, *stamp in good}, {(a, b): found for a, b, found in combined})


def remember(connection: Connection, memory: Memory) -> None:
    """Remember ``memory``, and nothing else."""
    connection.execute("DELETE FROM good")
    connection.executemany(
        "INSERT INTO good VALUES (?, ?, ?, ?)", [(name, *stamp) for name, stamp in memory.good.items()]
    )
    connection.execute("DELETE FROM combined")
    connection.executemany(
        "INSERT INTO combined VALUES (?, ?, ?)", [(*parts, found) for parts, found in memory.combined.items()]
    )
