"""Compressed blocks on disk, for images that share most of their files.

Any number of processes may use one folder: an entry appears whole, by a rename, and carries its own checksum,
so that one that was damaged, or cut short by a full disk, is made anew instead of being believed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from iceshelves.core.log import logger

DEFAULT_LIMIT: Final = 4 * 1024**3

_MAGIC: Final = b"ISB1"
_HEADER: Final = len(_MAGIC) + 32
_NAME: Final = re.compile(r"[0-9a-f]{64}")
_DRAFT: Final = re.compile(r"[0-9a-f]{64}\.[0-9a-f]{16}")
#: seconds after which what a killed process was writing is rubbish
_ABANDONED: Final = 3600
#: parts of the limit that are left after blocks had to go, so that this is not done for each new one
_KEPT: Final = 0.9

log: Final = logger(__name__)


@dataclass(frozen=True, slots=True)
class BlockCache:
    """Blocks in ``folder``, by key (32 bytes).  Above ``limit`` bytes, what was not used the longest goes.

    It is a help and nothing more: what cannot be read or written is logged, and done without.
    """

    folder: Path
    limit: int = DEFAULT_LIMIT

    def get(self, key: bytes) -> bytes | None:
        """The block with this key, if it is there and whole."""
        path = self._path(key)
        try:
            data = path.read_bytes()
            os.utime(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("a cached block cannot be read: %s", error)
            return None
        block = data[_HEADER:]
        if data[:_HEADER] == _header(block):
            return block
        log.warning("the cached block %s is damaged and is made anew", path.name)
        with contextlib.suppress(OSError):  # it is replaced in any case
            path.unlink()
        return None

    def put(self, key: bytes, block: bytes) -> None:
        """Keep ``block``."""
        path = self._path(key)
        draft = path.with_suffix(f".{secrets.token_hex(8)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                draft.write_bytes(_header(block) + block)
                draft.rename(path)
            except OSError:
                draft.unlink(missing_ok=True)
                raise
        except OSError as error:
            log.warning("a compressed block cannot be cached: %s", error)

    def trim(self) -> int:
        """Keep within the limit; the number of bytes that went.  To be called after an image was written."""
        found = sorted(self._found())
        total = sum(size for _, size, _ in found)
        gone = 0
        if total > self.limit:
            for _, size, path in found:
                if total - gone <= self.limit * _KEPT:
                    break
                path.unlink(missing_ok=True)
                gone += size
        return gone

    def _found(self) -> Iterator[tuple[float, int, Path]]:
        """Time of last use, bytes and path of each block; drafts that nobody writes any more go at once."""
        for index in range(256):
            folder = self.folder / f"{index:02x}"
            with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):  # another process trims as well
                        facts = entry.stat(follow_symlinks=False)
                        if _NAME.fullmatch(entry.name):
                            yield facts.st_mtime, facts.st_size, folder / entry.name
                        elif _DRAFT.fullmatch(entry.name) and facts.st_mtime < time.time() - _ABANDONED:
                            (folder / entry.name).unlink()

    def _path(self, key: bytes) -> Path:
        name = key.hex()
        return self.folder / name[:2] / name


def _header(block: bytes) -> bytes:
    return _MAGIC + hashlib.sha256(block).digest()
