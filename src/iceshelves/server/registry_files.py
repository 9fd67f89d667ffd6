"""A registry's tree over HTTP, as stock clients read it.

Images are named by their content, so they may be kept for ever; catalogues are asked for again after minutes.
The clients accept gzip and send neither conditions nor ranges; caches and our own tools do.
"""

from __future__ import annotations

import gzip
import posixpath
import re
from functools import lru_cache
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import FileResponse, Response

from iceshelves.core.errors import NotFound
from iceshelves.core.ranges import span

_CATALOGUE: Final = re.compile(r"(?:[a-z0-9][a-z0-9-]{0,62}/){0,2}streams/v1/[A-Za-z0-9._-]{1,100}\.json")
_IMAGE: Final = re.compile(r"images/(?P<name>(?P<sha256>[0-9a-f]{64})\.[a-z0-9.]{1,16})")
_FOR_EVER: Final = "public, max-age=31536000, immutable"
_MINUTES: Final = "public, max-age=60"
JSON: Final = "application/json"
FILE: Final = "application/octet-stream"


def image_of(file: str) -> str | None:
    """The SHA-256 of the image file that ``file`` names, if it names one."""
    match = _IMAGE.fullmatch(_normal(file))
    return match["sha256"] if match else None


def respond(request: Request, tree: Path, file: str) -> Response:
    """The file of the tree that is asked for.  Raises :class:`NotFound` ``image_file_not_found``."""
    wanted = _normal(file)
    if _CATALOGUE.fullmatch(wanted):
        return _catalogue(request, tree / wanted, file)
    if (match := _IMAGE.fullmatch(wanted)) is not None:
        return _image(request, tree / wanted, match["sha256"], file)
    raise nothing(file)


def _normal(file: str) -> str:
    """Clients climb out of a channel to the images beside it: ``stable/../images/…``."""
    return posixpath.normpath(f"/{file}").lstrip("/")


def _catalogue(request: Request, path: Path, asked: str) -> Response:
    try:
        found = path.stat()
    except FileNotFoundError as error:
        raise nothing(asked) from error
    tag = f'"{found.st_mtime_ns:x}-{found.st_size:x}"'
    headers = {"ETag": tag, "Cache-Control": _MINUTES, "Vary": "Accept-Encoding"}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    plain, packed = _read(path, found.st_mtime_ns, found.st_size)
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(packed, headers={**headers, "Content-Encoding": "gzip"}, media_type=JSON)
    return Response(plain, headers=headers, media_type=JSON)


@lru_cache(maxsize=32)
def _read(path: Path, _changed: int, _size: int) -> tuple[bytes, bytes]:
    """A catalogue, and packed; read anew once it has changed."""
    plain = path.read_bytes()
    return plain, gzip.compress(plain, 6, mtime=0)


def _image(request: Request, path: Path, sha256: str, asked: str) -> Response:
    if not path.is_file():
        raise nothing(asked)
    headers = {"ETag": f'"{sha256}"', "Cache-Control": _FOR_EVER}
    if f'"{sha256}"' in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    _settle_range(request, path.stat().st_size)
    return FileResponse(path, headers=headers, media_type=FILE)


def _settle_range(request: Request, size: int) -> None:
    """Leave the response one range that there is, or none."""
    asked = request.headers.get("range")
    if asked is None:
        return
    start, end, whole = span(asked, size)
    kept = [(name, value) for name, value in request.scope["headers"] if name != b"range"]
    request.scope["headers"] = kept if whole else [*kept, (b"range", b"bytes=%d-%d" % (start, end - 1))]


def nothing(asked: str) -> NotFound:
    """There is no such file."""
    return NotFound(
        f"The registry has no {asked[:200]!r}.",
        code="image_file_not_found",
        hint="'iceshelves image remote-line' shows what clients need.",
    )
