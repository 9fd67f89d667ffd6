"""Secrets at rest: AES-256-GCM, bound to the row that they belong to, with keys that can be rotated.

A value is ``version byte · key id (4 bytes) · nonce (12 bytes) · ciphertext and tag``.  The place it is
stored in (table, column, row) is authenticated with it, so that a value cannot be moved to another row.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from iceshelves.core.errors import Failed, InvalidInput

_VERSION: Final = b"\x01"
_HEAD: Final = 1 + 4 + 12


class Cipher:
    """Encrypts with the first key and decrypts with any.  A key is 32 bytes."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys or any(len(key) != 32 for key in keys):
            raise InvalidInput(
                "An encryption key must be 32 bytes, written in base64.",
                code="invalid_encryption_key",
                hint="Make one with: head -c 32 /dev/urandom | base64",
            )
        self._current = _key_id(keys[0])
        self._keys = {_key_id(key): AESGCM(key) for key in keys}

    def encrypt(self, plain: bytes, place: str) -> bytes:
        """``plain`` encrypted for ``place``, for example ``revisions.spec:42``."""
        nonce = os.urandom(12)
        sealed = self._keys[self._current].encrypt(nonce, plain, place.encode())
        return _VERSION + self._current + nonce + sealed

    def decrypt(self, value: bytes, place: str) -> bytes:
        """The plain bytes.  Raises :class:`Failed` ``undecryptable`` for a lost key or an altered value."""
        key = self._keys.get(value[1:5])
        if value[:1] != _VERSION or key is None:
            raise Failed(
                "A stored secret was encrypted with a key that is not here.",
                code="undecryptable",
                hint="Add the former key to ICESHELVES_ENCRYPTION_KEY, after the new one and a comma.",
            )
        try:
            return key.decrypt(value[5:_HEAD], value[_HEAD:], place.encode())
        except InvalidTag as error:
            raise Failed(
                "A stored secret is damaged, or was moved from another row.",
                code="undecryptable",
                hint="Restore the database from a backup.",
            ) from error


def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(b"iceshelves key id" + key).digest()[:4]


def open_cipher(configured: str | None, key_file: Path) -> Cipher:
    """The cipher of this installation.

    ``configured`` (``ICESHELVES_ENCRYPTION_KEY``) holds base64 keys, newest first, parted by commas.  Without
    it a key is made once and kept in ``key_file`` with mode 0600; it is never printed.
    """
    if configured:
        return Cipher([_decode(part) for part in configured.split(",")])
    if not key_file.exists():
        draft = key_file.with_suffix(f".{os.getpid()}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(base64.b64encode(os.urandom(32)) + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        try:
            os.link(draft, key_file)  # the first of several servers wins
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return Cipher([_decode(key_file.read_text())])


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text.strip(), validate=True)
    except binascii.Error:
        return b""
