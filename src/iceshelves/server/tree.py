"""A registry's tree served by itself, without a control plane: ``iceshelves image serve``."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from iceshelves.core.errors import IceShelvesError
from iceshelves.server import registry_files as files
from iceshelves.server.listening import listen
from iceshelves.server.problems import status_of
from iceshelves.server.tls import Tls

_GRACE: Final = 1


def serve_tree(tree: Path, host: str, port: int, tls: Tls | None) -> None:
    """Serve ``tree`` until a signal ends it.  ``port`` 0 takes a free one.

    Raises :class:`InvalidInput` ``cannot_listen``, :class:`Conflict` ``address_in_use``.
    """
    with listen(host, port) as listener:
        secure = "https" if tls else "http"
        address = f"{secure}://{host}:{listener.getsockname()[1]}"
        server = uvicorn.Server(
            uvicorn.Config(
                _application(tree),
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_GRACE,
                ssl_certfile=None if tls is None else tls.certificate,
                ssl_keyfile=None if tls is None else tls.key,
            )
        )
        print(f"{tree} is served at {address}", flush=True)  # noqa: T201
        asyncio.run(server.serve([listener]))


def _application(tree: Path) -> Starlette:
    def read(request: Request) -> Response:
        try:
            return files.respond(request, tree, request.path_params["file"])
        except IceShelvesError as error:
            return JSONResponse(error.to_json(), status_of(error))

    return Starlette(routes=[Route("/{file:path}", read, methods=["GET"])])
