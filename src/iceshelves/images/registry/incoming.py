"""Files on their way in: copied or moved beside the tree, hashed while they are read, judged, made safe.

What is judged is our own copy, so that nobody can change it between the look and the use.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from iceshelves.core.errors import InvalidInput
from iceshelves.images.files import Sink, pour
from iceshelves.images.metadata import ImageMetadata, read_metadata
from iceshelves.images.registry.disk import sync_all, sync_everything
from iceshelves.images.registry.model import METADATA_KIND, Publication, StoredFile
from iceshelves.images.simplestreams.names import DISK, SQUASHFS

_MAX_METADATA: Final = 8 * 1024 * 1024
_MAGIC: Final = {SQUASHFS: b"hsqs", DISK: b"QFI\xfb"}
_SHORTEST_ROOT: Final = 96  # a superblock of squashfs; qcow2's header is longer
#: From so many files on, one sync of everything is cheaper than one for each.
_MANY: Final = 32


@dataclass(frozen=True, slots=True)
class Arrived:
    """A file in the folder of incoming ones, and what it will be in the registry."""

    path: Path
    file: StoredFile


@dataclass(frozen=True, slots=True)
class Arrival:
    """A publication's files, all of them here."""

    publication: Publication
    metadata: ImageMetadata
    files: tuple[Arrived, ...]


@contextmanager
def arrivals(publications: Sequence[Publication], folder: Path) -> Iterator[list[Arrival]]:
    """The files of ``publications``, brought into ``folder`` and safe on disk; those left over go at the end.

    Raises :class:`InvalidInput` for a file that is not what it should be.
    """
    porter = _Porter(folder)
    try:
        arrived = [porter.bring(publication) for publication in publications]
        porter.make_safe()
        yield arrived
    finally:
        porter.sweep()


@dataclass(slots=True)
class _Porter:
    folder: Path
    paths: list[Path] = field(default_factory=list)

    def bring(self, publication: Publication) -> Arrival:
        files = publication.files
        plain = hashlib.sha256()
        size, path = self._fetch(files.metadata, publication, _MAX_METADATA, [plain.update])
        arrived = [Arrived(path, StoredFile(METADATA_KIND, plain.hexdigest(), size))]
        metadata = read_metadata(path)
        for kind, source in ((SQUASHFS, files.rootfs), (DISK, files.disk)):
            if source is None:
                continue
            own, combined = hashlib.sha256(), plain.copy()
            size, path = self._fetch(source, publication, None, [own.update, combined.update])
            _check_root(path, source, kind)
            file = StoredFile(kind, own.hexdigest(), size, combined.hexdigest())
            arrived.append(Arrived(path, file))
        if len(arrived) == 1:
            raise InvalidInput(
                "The image has neither a squashfs nor a disk.",
                code="invalid_image",
                hint="Give a root file system, a disk, or both.",
            )
        return Arrival(publication, metadata, tuple(arrived))

    def make_safe(self) -> None:
        if len(self.paths) > _MANY:
            sync_everything(self.folder)
            return
        sync_all(self.paths)

    def sweep(self) -> None:
        for path in self.paths:
            path.unlink(missing_ok=True)

    def _fetch(
        self, source: Path, publication: Publication, most: int | None, sinks: list[Sink]
    ) -> tuple[int, Path]:
        target = self.folder / uuid.uuid4().hex
        self.paths.append(target)
        descriptor = _open_plain(source, most)
        with os.fdopen(descriptor, "rb", buffering=0) as stream:
            if publication.given_away and _moved(source, target):
                if not os.path.samestat(os.fstat(descriptor), target.lstat()):
                    raise _unusable(source, "changed meanwhile")
                os.fchmod(descriptor, 0o644)
                return pour(stream, sinks), target
            with target.open("xb", buffering=0) as copy:
                os.fchmod(copy.fileno(), 0o644)
                size = pour(stream, [*sinks, _writer(copy.fileno())])
        if publication.given_away:
            source.unlink()
        return size, target


def _open_plain(path: Path, most: int | None) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise _unusable(path, f"cannot be read: {error.strerror}") from error
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or (most is not None and found.st_size > most):
        os.close(descriptor)
        what = f"is larger than {most} bytes" if stat.S_ISREG(found.st_mode) else "is not a plain file"
        raise _unusable(path, what)
    return descriptor


def _unusable(path: Path, what: str) -> InvalidInput:
    return InvalidInput(
        f"{path.name} {what}.", code="invalid_image", hint="Give the image's own files, and no links to them."
    )


def _moved(source: Path, target: Path) -> bool:
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return False
    return True


def _writer(descriptor: int) -> Sink:
    def write(chunk: bytes) -> None:
        left = memoryview(chunk)
        while left:
            left = left[os.write(descriptor, left) :]

    return write


def _check_root(path: Path, source: Path, kind: str) -> None:
    with suppress(OSError), path.open("rb") as stream:
        start = stream.read(_SHORTEST_ROOT)
        if len(start) == _SHORTEST_ROOT and start.startswith(_MAGIC[kind]):
            return
    wanted = "a squashfs" if kind == SQUASHFS else "a qcow2 disk"
    raise InvalidInput(f"{source.name} is not {wanted}.", code="invalid_image", hint="Build the image again.")
