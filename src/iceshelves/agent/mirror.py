"""The cluster's image servers, as the hypervisor sees them where it has no other way out.

The daemon fetches its images from here, over loopback; here they are fetched from the server.  The port is
another one at every start, so the daemon is told not to come back by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import aiohttp

from iceshelves.connections.values import ImageServer
from iceshelves.core.errors import IceShelvesError, Temporary
from iceshelves.core.log import logger

if TYPE_CHECKING:
    from aiohttp import web

_HERE: Final = "127.0.0.1"
_CHUNK: Final = 256 * 1024
_PASSED_ON: Final = ("Content-Length", "Content-Range", "Content-Type", "Accept-Ranges")

log: Final = logger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file of an image server; ``part`` is the header ``Range``, or empty."""

    server: str
    path: str
    part: str = ""


Fetch = Callable[[Wanted], AbstractAsyncContextManager[aiohttp.ClientResponse]]


class Mirror:
    """Lives on the event loop; takes no memory and no port until it serves."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._runner: web.AppRunner | None = None
        self._names: frozenset[str] = frozenset()

    async def serve(self, servers: Sequence[ImageServer]) -> tuple[ImageServer, ...]:
        """Begin to serve; the same servers at the addresses that they have here.

        Raises :class:`Temporary` ``mirror_unusable``.
        """
        from aiohttp import web

        await self.close()
        self._names = frozenset(server.name for server in servers)
        application = web.Application()
        application.router.add_get("/{server}/{path:.+}", self._answer, allow_head=False)
        runner = web.AppRunner(application, access_log=None, handle_signals=False)
        await runner.setup()
        try:
            await web.TCPSite(runner, _HERE, 0).start()
        except OSError as error:
            await runner.cleanup()
            raise Temporary(
                f"Nothing can be served at {_HERE}: {error.strerror or error}.",
                code="mirror_unusable",
                hint="The hypervisor needs its loopback interface.",
            ) from error
        self._runner = runner
        port = runner.addresses[0][1]
        log.info("images come through the server, at %s:%d", _HERE, port)
        return tuple(
            replace(server, url=f"http://{_HERE}:{port}/{server.name}", lasting=False) for server in servers
        )

    async def close(self) -> None:
        """Serve no more."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        from aiohttp import web

        wanted = Wanted(
            request.match_info["server"], request.match_info["path"], request.headers.get("Range", "")
        )
        if wanted.server not in self._names:
            raise web.HTTPNotFound
        answer: web.StreamResponse | None = None
        try:
            async with self._fetch(wanted) as found:
                answer = web.StreamResponse(status=found.status)
                for name in _PASSED_ON:
                    if name in found.headers:
                        answer.headers[name] = found.headers[name]
                await answer.prepare(request)
                async for chunk in found.content.iter_chunked(_CHUNK):
                    try:
                        await answer.write(chunk)
                    except ConnectionError:  # the daemon has hung up
                        return answer
        except IceShelvesError as error:
            log.warning("%s/%s is not passed on: %s", wanted.server, wanted.path, error.message)
            if answer is None:
                raise web.HTTPBadGateway(text=error.message) from error
            if request.transport is not None:  # what has been cut off must not look whole
                request.transport.abort()
            return answer
        await answer.write_eof()
        return answer
