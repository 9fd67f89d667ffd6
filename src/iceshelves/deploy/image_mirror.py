"""Images for hypervisors that reach nothing but this server: their image servers, passed through.

A cluster's agent may ask for what the SimpleStreams index of one of its image servers names, and for
nothing else: the paths are not passed on, they are looked up.  Files of images come from the cache.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import aiohttp
from yarl import URL

from iceshelves.clusters.reaching import image_servers, passes_images
from iceshelves.connections.values import ImageServer
from iceshelves.core.errors import Failed, IceShelvesError, NotFound, Temporary
from iceshelves.core.http import open_session, read_bounded
from iceshelves.core.log import logger
from iceshelves.core.ranges import span
from iceshelves.core.threads import in_thread
from iceshelves.core.vetting import Judge, VettedResolver, check_host, is_configurable, is_public
from iceshelves.deploy.image_cache import ImageCache, Item
from iceshelves.providers.incus.images import IMAGE_SERVERS
from iceshelves.store.database import Database
from iceshelves.store.models import Cluster

INDEX: Final = "streams/v1/index.json"
#: bytes of an index or of a list of products; the largest public one has about 10 MB
_MAX_LIST: Final = 32 * 1024 * 1024
#: bytes of lists that are held for all clusters together
_MAX_HELD: Final = 64 * 1024 * 1024
_MOST_LISTS: Final = 32
_MAX_PATH: Final = 1024
#: seconds for which a list is taken as it is
_FRESH: Final = 60.0
#: seconds for a whole file
_DEADLINE: Final = 3600.0
_MOST_REDIRECTS: Final = 5
_CHUNK: Final = 256 * 1024
_SEGMENT: Final = r"[A-Za-z0-9_+~-][A-Za-z0-9._+~:@=,-]*"
_PATH: Final = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*")
_HASH: Final = re.compile(r"[0-9a-f]{64}")

log: Final = logger(__name__)


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes ``start`` to ``end`` (exclusive) of a file of ``size``; ``whole`` where no part was asked for."""

    start: int
    end: int
    size: int
    whole: bool
    media_type: str
    chunks: AsyncIterator[bytes]


@dataclass(slots=True)
class _List:
    """An index or a list of products, as it was fetched."""

    raw: bytes
    fetched: float
    paths: tuple[str, ...] = ()
    items: Mapping[str, Item] = field(default_factory=dict)


class ImageMirror:
    """Lives on the event loop."""

    def __init__(self, database: Database, folder: Path, limit: int) -> None:
        self._database = database
        self._cache = ImageCache(folder, limit)
        self._lists: dict[tuple[str, str], _List] = {}
        self._locks: defaultdict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._sessions: dict[Judge, aiohttp.ClientSession] = {}

    async def open(self, cluster_id: int, server: str, path: str, asked: str = "") -> Part:
        """What the cluster's image server called ``server`` has at ``path``; ``asked`` is a ``Range`` header.

        Raises :class:`NotFound` ``no_image_mirror``, ``image_server_not_found`` and ``image_file_not_found``,
        :class:`InvalidInput` ``invalid_range``, and what the image server does.
        """
        url = await in_thread(self._url_of, cluster_id, server)
        if len(path) > _MAX_PATH or not _PATH.fullmatch(path):
            raise _no_file(path)
        if path == INDEX or path in (await self._list(url, INDEX)).paths:
            raw = (await self._list(url, path)).raw
            start, end, whole = span(asked, len(raw))
            return Part(start, end, len(raw), whole, "application/json", _once(raw[start:end]))
        item = await self._item(url, path)
        start, end, whole = span(asked, item.size)
        blob = await self._cache.get(item, partial(self._chunks, url, path))
        chunks = await blob.opened(start, end)
        return Part(start, end, item.size, whole, "application/octet-stream", chunks)

    async def close(self) -> None:
        """Break off what is on its way, and hang up."""
        await self._cache.close()
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await session.close()

    def _url_of(self, cluster_id: int, name: str) -> str:
        with self._database.read() as session:
            cluster = session.get(Cluster, cluster_id)
            if cluster is None or not passes_images(cluster.options):
                raise NotFound(
                    "This cluster's images do not come through the server.",
                    code="no_image_mirror",
                    hint='An administrator sets the cluster\'s option {"images_through": "server"}.',
                )
            servers = sources(cluster.provider, image_servers(cluster.options))
        found = next((server.url for server in servers if server.name == name), None)
        if found is None:
            raise NotFound(f"The cluster has no image server {name!r}.", code="image_server_not_found")
        return found.rstrip("/")

    async def _item(self, url: str, path: str) -> Item:
        silent: IceShelvesError | None = None
        for products in (await self._list(url, INDEX)).paths:
            try:
                found = (await self._list(url, products)).items.get(path)
            except IceShelvesError as error:
                silent = error
                continue
            if found is not None:
                return found
        if silent is not None:
            raise silent
        raise _no_file(path)

    async def _list(self, url: str, path: str) -> _List:
        """The list at ``path``, fetched by one for all; one that cannot be had anew is used as it was."""
        async with self._locks[url, path]:
            return await self._list_alone(url, path)

    async def _list_alone(self, url: str, path: str) -> _List:
        known = self._lists.get((url, path))
        if known is not None and time.monotonic() < known.fetched + _FRESH:
            return known
        try:
            raw = await self._read(url, path)
            found = await in_thread(read_list, raw, path)
        except IceShelvesError as error:
            if known is None or isinstance(error, NotFound):
                raise
            log.warning("%s/%s is used as it was: %s", url, path, error)
            found = known
        found.fetched = time.monotonic()
        self._lists.pop((url, path), None)
        self._lists[url, path] = found  # the newest last
        self._forget_old_lists()
        return found

    def _forget_old_lists(self) -> None:
        held = sum(len(each.raw) for each in self._lists.values())
        for key in list(self._lists)[:-1]:
            if held <= _MAX_HELD:
                return
            held -= len(self._lists.pop(key).raw)
            if not self._locks[key].locked():
                del self._locks[key]

    async def _read(self, url: str, path: str) -> bytes:
        async with self._answer(url, path) as response:
            return await read_bounded(response, _MAX_LIST)

    @asynccontextmanager
    async def _chunks(self, url: str, path: str) -> AsyncIterator[AsyncIterator[bytes]]:
        async with self._answer(url, path) as response:
            yield response.content.iter_chunked(_CHUNK)

    @asynccontextmanager
    async def _answer(self, url: str, path: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """The image server's answer, through redirections that are harmless."""
        origin = URL(url)
        where = URL(f"{url}/{quote(path, safe='/+~:@=,')}", encoded=True)
        try:
            for _ in range(_MOST_REDIRECTS):
                at_home = (where.host, where.port) == (origin.host, origin.port)
                async with self._session(where, is_configurable if at_home else is_public).get(
                    where, allow_redirects=False
                ) as response:
                    if response.status in (301, 302, 303, 307, 308):
                        where = _next(where, response.headers.get("Location", ""))
                        continue
                    if response.status in (404, 410):
                        raise _no_file(path)
                    if response.status != 200:
                        raise _refuses(url, response.status)
                    yield response
                    return
            raise _astray(url)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            why = str(error) or type(error).__name__
            raise Temporary(
                f"The image server {url} cannot be reached: {why}.",
                code="image_server_unreachable",
                hint="The server that fetches for this cluster needs a way to it.",
                delay=5.0,
            ) from error

    def _session(self, where: URL, judge: Judge) -> aiohttp.ClientSession:
        check_host(where.host or "", judge)
        if judge not in self._sessions:
            connector = aiohttp.TCPConnector(resolver=VettedResolver(judge), use_dns_cache=False)
            self._sessions[judge] = open_session(connector, str(where.origin()), deadline=_DEADLINE)
        return self._sessions[judge]


def sources(family: str, named: tuple[ImageServer, ...] | None) -> tuple[ImageServer, ...]:
    """The image servers of a cluster: those that its options name, or its family's usual ones."""
    return tuple(IMAGE_SERVERS.get(family, ())) if named is None else named


def read_list(raw: bytes, path: str) -> _List:
    """Read an index or a list of products; what does not fit is left out, since it cannot be asked for then.

    Raises :class:`Failed` ``bad_image_index``.
    """
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Failed(
            f"The image server's {path} cannot be read.",
            code="bad_image_index",
            hint="It has to be a SimpleStreams server.",
        ) from error
    wanted = "index" if path == INDEX else "products"
    if not isinstance(value, dict) or not isinstance(value.get(wanted), dict):
        raise Failed(
            f"The image server's {path} is not a list of images.",
            code="bad_image_index",
            hint="It has to be a SimpleStreams server.",
        )
    if path == INDEX:
        named = (str(each.get("path", "")) for each in _objects(value, "index"))
        good = [each for each in named if each.startswith("streams/") and _PATH.fullmatch(each)]
        return _List(raw, 0.0, paths=tuple(dict.fromkeys(good))[:_MOST_LISTS])
    items: dict[str, Item] = {}
    for product in _objects(value, "products"):
        for version in _objects(product, "versions"):
            for item in _objects(version, "items"):
                where, size, digest = item.get("path"), item.get("size"), item.get("sha256")
                if (
                    isinstance(where, str) and len(where) <= _MAX_PATH and _PATH.fullmatch(where)
                    and isinstance(digest, str) and _HASH.fullmatch(digest)
                    and isinstance(size, int) and size > 0
                ):  # fmt: skip
                    items[where] = Item(size, digest)
    return _List(raw, 0.0, items=items)


def _objects(value: Any, name: str) -> Iterator[dict[str, Any]]:
    inner = value.get(name) if isinstance(value, dict) else None
    for each in inner.values() if isinstance(inner, dict) else ():
        if isinstance(each, dict):
            yield each


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _next(where: URL, location: str) -> URL:
    found: URL | None = None
    with suppress(ValueError):
        found = where.join(URL(location))
    if not location or found is None or found.scheme not in ("http", "https") or not found.host:
        raise _astray(str(where.origin()))
    if where.scheme == "https" and found.scheme != "https":  # nothing is taken in the clear instead
        raise _astray(str(where.origin()))
    return found


def _no_file(path: str) -> NotFound:
    return NotFound(
        f"The image server names no file {path[:200]!r}.",
        code="image_file_not_found",
        hint="Only what its index names can be had.",
    )


def _refuses(url: str, status: int) -> Failed:
    return Failed(f"The image server {url} answers with status {status}.", code="image_server_refused")


def _astray(url: str) -> Failed:
    return Failed(
        f"The image server {url} leads elsewhere again and again, or where nobody may be led.",
        code="image_server_refused",
        hint="Name the server that it leads to in the cluster's option image_servers.",
    )
