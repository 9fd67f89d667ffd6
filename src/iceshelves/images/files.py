"""A built image as files, and the hashes that name them.

Every file is read once, however many hashes are wanted of it: hashing costs more than reading, so each hash
of a large file is computed in a thread of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Protocol, TypeAlias

#: Bytes read at once; hashing is fastest from about 1 MiB on.
CHUNK: Final = 1024 * 1024

Sink: TypeAlias = Callable[[bytes], object]


class Hash(Protocol):
    """What hashlib calls a hash object."""

    def update(self, data: bytes, /) -> None:
        """Take ``data`` in."""

    def hexdigest(self) -> str:
        """The digest of everything so far."""


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """A built image: its metadata tarball, and a squashfs (container), a qcow2 (virtual machine), or both."""

    metadata: Path
    rootfs: Path | None = None
    disk: Path | None = None


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """What Incus and LXD know the images by: SHA-256 of the metadata followed by the root file."""

    container: str | None = None
    virtual_machine: str | None = None


def fingerprints(files: ImageFiles) -> Fingerprints:
    """The fingerprints of ``files``; reads each of them once."""
    return Fingerprints(_combined(files.metadata, files.rootfs), _combined(files.metadata, files.disk))


def pour(source: BinaryIO, sinks: Sequence[Sink]) -> int:
    """Give all of ``source`` to every sink, chunk by chunk and each in order; the number of bytes."""
    with _side_by_side(source, sinks) as feed:
        total = 0
        while chunk := source.read(CHUNK):
            feed(chunk)
            total += len(chunk)
        return total


@contextmanager
def _side_by_side(source: BinaryIO, sinks: Sequence[Sink]) -> Iterator[Sink]:
    """One sink that feeds all: in threads only where the file is large enough to be worth them."""
    small = source.seekable() and source.seek(0, 2) <= CHUNK
    if source.seekable():
        source.seek(0)
    if small or len(sinks) < 2:
        yield lambda chunk: [sink(chunk) for sink in sinks]
        return
    with ThreadPoolExecutor(len(sinks) - 1) as pool:

        def feed(chunk: bytes) -> None:
            others = [pool.submit(sink, chunk) for sink in sinks[1:]]
            sinks[0](chunk)
            for other in others:
                other.result()

        yield feed


def _combined(metadata: Path, root: Path | None) -> str | None:
    if root is None:
        return None
    combined = hashlib.sha256()
    for path in (metadata, root):
        with path.open("rb") as stream:
            pour(stream, [combined.update])
    return combined.hexdigest()
