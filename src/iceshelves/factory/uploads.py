"""Files of images on their way in, in pieces: named by their content, so that sending can go on later."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from pathlib import Path
from typing import Final

from iceshelves.core.errors import Conflict, Failed, InvalidInput, NotFound

#: bytes; larger than any image that a registry would hold
_MOST: Final = 64 * 1024**3
_KEPT_SECONDS: Final = 86400.0
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class Uploads:
    """The uploads of all tenants; may be used from several threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def size(self, tenant_id: int, sha256: str) -> int:
        """How many bytes of the file are here."""
        try:
            return self._path(tenant_id, sha256).stat().st_size
        except FileNotFoundError:
            return 0

    def add(self, tenant_id: int, sha256: str, offset: int, piece: bytes) -> int:
        """Add a piece that begins at ``offset``; how many bytes are here now.

        A piece that is here already is passed over.  Raises :class:`Conflict` ``upload_has_gap``.
        """
        path = self._path(tenant_id, sha256)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            here = os.fstat(descriptor).st_size
            if offset > here or offset + len(piece) > _MOST:
                raise Conflict(
                    f"The next piece of this upload begins at {here}.",
                    code="upload_has_gap",
                    hint="Go on from there.",
                    details={"size": here},
                )
            return here + os.pwrite(descriptor, piece[here - offset :], here)
        except OSError as error:
            raise Failed(
                f"The upload cannot be kept: {error.strerror}.",
                code="upload_refused",
                hint="Make room on the server's disk, then go on.",
            ) from error
        finally:
            os.close(descriptor)

    def take(self, tenant_id: int, sha256: str) -> Path:
        """The whole file, for its taker to remove once it is not needed any more.

        Raises :class:`NotFound` ``upload_not_found``; one with another content is removed and refused with
        :class:`InvalidInput` ``upload_damaged``.
        """
        path = self._path(tenant_id, sha256)
        try:
            with path.open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
        except FileNotFoundError as error:
            raise NotFound(
                f"Nothing was uploaded as {sha256[:12]}….",
                code="upload_not_found",
                hint="Upload it first.",
            ) from error
        if found != sha256:
            path.unlink(missing_ok=True)
            raise InvalidInput(
                f"What was uploaded as {sha256[:12]}… has another content.",
                code="upload_damaged",
                hint="Upload it again.",
            )
        return path

    def forget_old(self) -> None:
        """Remove what nobody has taken for a day."""
        horizon = time.time() - _KEPT_SECONDS
        for path in self._folder.glob("*/*"):
            with contextlib.suppress(FileNotFoundError):  # somebody has just taken it
                if path.stat().st_mtime < horizon:
                    path.unlink()

    def _path(self, tenant_id: int, sha256: str) -> Path:
        if not _SHA256.fullmatch(sha256):
            raise InvalidInput("An upload is named by the SHA-256 of its content.", code="invalid_request")
        return self._folder / str(tenant_id) / sha256
