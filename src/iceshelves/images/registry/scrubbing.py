"""Files of images against what catalogues say of them: size, hash, fingerprints, readable metadata, deltas.

What was found good is remembered by size, time of change and inode, and is not read again unless asked.
A fingerprint, once computed from a metadata and a root file of given hashes, holds for ever.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from iceshelves.core.errors import IceShelvesError
from iceshelves.images.files import CHUNK
from iceshelves.images.metadata import read_metadata
from iceshelves.images.registry import xdelta
from iceshelves.images.registry.findings import Findings
from iceshelves.images.registry.judging import Delta, Image, Needed
from iceshelves.images.registry.memory import Memory, Stamp
from iceshelves.images.simplestreams.names import ARCHITECTURES

_MAX_METADATA: Final = 8 * 1024 * 1024
_THREADS: Final = 2


@dataclass(slots=True)
class _Read:
    """What reading a file once gave: its own hash, and each metadata's fingerprint with it."""

    sha256: str
    size: int
    combined: dict[str, str]


class Scrub:
    """Checks the files in ``images``; ``memory`` is used and brought up to date."""

    def __init__(self, images: Path, findings: Findings, memory: Memory) -> None:
        self._images = images
        self._findings = findings
        self._memory = memory
        self.files = 0
        self.read = 0
        self.known_good = 0
        self._useless: set[str] = set()

    def check(self, wanted: Iterable[Needed], images: Iterable[Image], deltas: Iterable[Delta]) -> None:
        """Check every file that is wanted, every image that they make, and every delta."""
        stamps = self._present(wanted)
        pictures = {(image.metadata, image.root, image.fingerprint): image for image in images}
        sound = [image for image in pictures.values() if image.metadata in stamps and image.root in stamps]
        descriptions = self._descriptions({image.metadata: image for image in sound}, stamps)
        self._read_files(stamps, sound, descriptions)
        for image in sound:
            self._fingerprint(image)
        self._deltas(deltas, sound)
        for name in [name for name in self._memory.good if name not in stamps]:
            del self._memory.good[name]

    def _present(self, wanted: Iterable[Needed]) -> dict[str, Stamp]:
        """Files that are there in the right size."""
        stamps: dict[str, Stamp] = {}
        judged: set[tuple[str, int]] = set()
        for file in wanted:
            if (file.name, file.size) in judged:
                continue
            judged.add((file.name, file.size))
            try:
                state = (self._images / file.name).lstat()
            except OSError:
                self._findings.file("file_missing", file.where, f"{file.name} is not there.")
                continue
            if not stat.S_ISREG(state.st_mode):
                self._findings.file("file_missing", file.where, f"{file.name} is not a plain file.")
            elif state.st_size != file.size:
                self._findings.file(
                    "wrong_size", file.where, f"{file.name} has {state.st_size} bytes and not {file.size}."
                )
            else:
                stamps[file.name] = Stamp(state.st_size, state.st_mtime_ns, state.st_ino)
        self.files = len(stamps)
        return stamps

    def _descriptions(self, of: Mapping[str, Image], stamps: Mapping[str, Stamp]) -> dict[str, bytes]:
        """The content of each metadata file; one that is not known to be good must be readable."""
        contents: dict[str, bytes] = {}
        for name, image in of.items():
            if stamps[name].size > _MAX_METADATA:
                self._findings.file("bad_metadata", name, "It is too large for an image's metadata.")
                self._useless.add(name)
                continue
            contents[name] = (self._images / name).read_bytes()
            if self._memory.good.get(name) == stamps[name]:
                continue
            try:
                metadata = read_metadata(self._images / name)
            except IceShelvesError as error:
                self._findings.file("bad_metadata", name, error.message)
                self._useless.add(name)
                continue
            if metadata.architecture not in (image.architecture, ARCHITECTURES.get(image.architecture)):
                self._useless.add(name)
                self._findings.catalogue(
                    "wrong_architecture", image.where,
                    f"It is for {metadata.architecture} and is listed for {image.architecture}.",
                )  # fmt: skip
        return contents

    def _read_files(
        self, stamps: Mapping[str, Stamp], images: Iterable[Image], descriptions: Mapping[str, bytes]
    ) -> None:
        partners: defaultdict[str, list[str]] = defaultdict(list)
        for image in images:
            if image.metadata in descriptions and _hashes(image) not in self._memory.combined:
                partners[image.root].append(image.metadata)
        due = [
            name for name, stamp in stamps.items()
            if self._memory.good.get(name) != stamp or name in partners
        ]  # fmt: skip
        self.known_good = len(stamps) - len(due)
        with ThreadPoolExecutor(_THREADS) as pool:
            jobs = {
                name: pool.submit(
                    _read, self._images / name, {each: descriptions[each] for each in partners[name]}
                )
                for name in due
            }
        for name, job in jobs.items():
            error = job.exception()
            if isinstance(error, OSError):
                self._findings.file("file_unreadable", name, f"{name} cannot be read: {error.strerror}.")
                continue
            self._take(name, stamps[name], job.result())

    def _take(self, name: str, stamp: Stamp, result: _Read) -> None:
        self.read += result.size
        own = _hash(name)
        if result.sha256 != own:
            self._memory.good.pop(name, None)
            self._findings.file("wrong_hash", name, f"Its content has the hash {result.sha256}.")
            return
        if name not in self._useless:
            self._memory.good[name] = stamp
        for metadata, combined in result.combined.items():
            self._memory.combined[_hash(metadata), own] = combined

    def _fingerprint(self, image: Image) -> None:
        found = self._memory.combined.get(_hashes(image))
        if found is not None and found != image.fingerprint:
            self._findings.catalogue(
                "wrong_fingerprint", image.where, f"Its files have the fingerprint {found}."
            )

    def _deltas(self, deltas: Iterable[Delta], images: Iterable[Image]) -> None:
        roots = {image.fingerprint: image.root for image in images}
        different = {(delta.name, delta.base, delta.target): delta for delta in deltas}
        due = [
            delta for delta in different.values()
            if delta.name in self._memory.good
            and _leads(delta) not in self._memory.combined
        ]  # fmt: skip
        if due and not xdelta.is_installed():
            self._findings.note(
                "deltas_not_checked", due[0].where, f"{len(due)} deltas were not applied.", "Install xdelta3."
            )
            return
        for delta in due:
            self._delta(delta, roots)

    def _delta(self, delta: Delta, roots: Mapping[str, str]) -> None:
        base, target = roots.get(delta.base), roots.get(delta.target)
        if base is None or target is None:
            return
        with tempfile.TemporaryDirectory(prefix="iceshelves-delta-") as folder:
            good = xdelta.gives(
                self._images / base, self._images / delta.name, _hash(target), Path(folder, "target")
            )
        if good:
            self._memory.combined[_leads(delta)] = _hash(target)
        else:
            self._findings.file("bad_delta", delta.where, f"{delta.name} does not give the image back.")


def _read(path: Path, metadata: Mapping[str, bytes]) -> _Read:
    """Read ``path`` once, for its own hash and for its fingerprint with each of ``metadata``."""
    own = hashlib.sha256()
    combined = {name: hashlib.sha256(content) for name, content in metadata.items()}
    size = 0
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb", buffering=0) as stream:
        while chunk := stream.read(CHUNK):
            size += len(chunk)
            own.update(chunk)
            for each in combined.values():
                each.update(chunk)
    return _Read(own.hexdigest(), size, {name: each.hexdigest() for name, each in combined.items()})


def _hash(name: str) -> str:
    return name.split(".", 1)[0]


def _leads(delta: Delta) -> tuple[str, str]:
    """What a delta was found to do: lead from one image to another."""
    return _hash(delta.name), f"{delta.base}-{delta.target}"


def _hashes(image: Image) -> tuple[str, str]:
    return _hash(image.metadata), _hash(image.root)
