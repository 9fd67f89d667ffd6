"""One egg as one file: gzip over tar, unpacked in memory within bounds.  See :mod:`iceshelves.eggs.tar`."""

from __future__ import annotations

import gzip
import zlib
from typing import Final

from iceshelves.core.errors import InvalidInput
from iceshelves.eggs import tar
from iceshelves.eggs.build import egg_from_files
from iceshelves.eggs.model import METADATA, Egg
from iceshelves.eggs.names import MAX_FILES, MAX_TOTAL_BYTES, check_totals

# Headers, padding and directories may come on top of what the files themselves may have.
_MAX_TAR: Final = MAX_TOTAL_BYTES + 4 * MAX_FILES * tar.BLOCK
_GZIP: Final = 16 + zlib.MAX_WBITS


def pack(egg: Egg) -> bytes:
    """``egg`` as one ``.egg`` file.  The same egg gives the same bytes (with the same zlib)."""
    return gzip.compress(tar.write(egg.files), compresslevel=9, mtime=0)


def unpack(data: bytes) -> Egg:
    """The egg in ``data``; nothing is written anywhere.

    Raises :class:`InvalidInput`: not gzip, a bomb, links, devices, unsafe or repeated names, too much of
    anything, or not an egg.
    """
    return egg_from_files(files_from_archive(data))


def files_from_archive(data: bytes) -> dict[str, bytes]:
    """The files in ``data``, unjudged but for the archive itself; a single top directory is dropped."""
    files: dict[str, bytes] = {}
    total = 0
    for name, content in tar.read(_gunzip(data)):
        if name in files:
            raise InvalidInput(
                f"The archive holds {name!r} twice.",
                code="unsafe_archive",
                hint="Pack the egg's directory again with 'iceshelves egg pack'.",
                details={"file": name},
            )
        files[name] = content
        total += len(content)
        check_totals(len(files), total)
    return _without_top_directory(files)


def _gunzip(data: bytes) -> bytes:
    if len(data) > _MAX_TAR:
        raise _not_an_archive(f"The archive is larger than {_MAX_TAR} bytes.", "egg_too_large")
    unzip = zlib.decompressobj(_GZIP)
    try:
        plain = unzip.decompress(data, _MAX_TAR + 1)
    except zlib.error as error:
        raise _not_an_archive("This is not a packed egg (gzip over tar).", "not_an_archive") from error
    if len(plain) > _MAX_TAR:
        raise _not_an_archive(f"The archive unpacks to more than {_MAX_TAR} bytes.", "archive_bomb")
    if not unzip.eof or unzip.unused_data:
        raise _not_an_archive("The archive is cut short, or something follows it.", "not_an_archive")
    return plain


def _not_an_archive(message: str, code: str) -> InvalidInput:
    return InvalidInput(message, code=code, hint="Pack the egg's directory with 'iceshelves egg pack'.")


def _without_top_directory(files: dict[str, bytes]) -> dict[str, bytes]:
    tops = {name.split("/", 1)[0] for name in files}
    if METADATA in files or len(tops) != 1 or not all("/" in name for name in files):
        return files
    return {name.split("/", 1)[1]: content for name, content in files.items()}
