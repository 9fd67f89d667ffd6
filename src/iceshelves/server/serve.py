"""The server's process: it takes its place, starts, says so once, and stops within seconds."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import uvicorn

from iceshelves import __version__
from iceshelves.core import log
from iceshelves.core.alone import alone
from iceshelves.core.errors import Conflict, InvalidInput, NotFound
from iceshelves.core.secret import Secret
from iceshelves.core.settings import Settings
from iceshelves.server.listening import listen
from iceshelves.server.tls import Tls, own

if TYPE_CHECKING:
    from fastapi import FastAPI

#: seconds that open connections get to finish, and that the whole process gets to stop
_GRACE: Final = 1
_LAST_CALL: Final = 2.5
#: glibc's malloc.h
_M_ARENA_MAX: Final = -8
_MAX_MESSAGE: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Listening:
    """Where to serve; ``port`` 0 takes a free one.  ``tls`` may be a certificate's files, or ``own``."""

    host: str
    port: int
    tls: Tls | Literal["own"] | None = None


def serve(settings: Settings, where: Listening, admin_token_file: Path | None = None) -> None:
    """Serve until a signal ends it.

    Raises :class:`InvalidInput` ``data_not_writable`` or ``cannot_listen``, and :class:`Conflict`
    ``address_in_use`` or ``data_in_use``.
    """
    log.configure(settings.log_level)
    _share_one_arena()
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # the ready line says what it would say
    gc.disable()  # nothing of what the start makes is garbage, and looking for some takes a tenth of it
    with _own(settings.data), listen(where.host, where.port) as listener:
        from iceshelves.deploy.control import ControlPlane
        from iceshelves.server.app import create_app

        tls = own(settings.data, where.host) if where.tls == "own" else where.tls
        control = ControlPlane(settings)
        address = _url(listener, "http" if tls is None else "https")
        if control.first_token is not None:
            _show_token(control.first_token, address, admin_token_file)
        server = _Server(create_app(control), address, tls)
        with asyncio.Runner(loop_factory=_new_loop) as runner:
            runner.run(server.serve([listener]))


def renew_admin_token(settings: Settings) -> Secret:
    """A new token for the administrator; the former ones end.  Works beside a running server.

    Raises :class:`NotFound` ``no_database`` where no server has ever run.
    """
    from iceshelves.access import bootstrap
    from iceshelves.store.database import Database, sqlite_url

    file = settings.data / "iceshelves.db"
    if settings.database_url is None and not file.is_file():
        raise NotFound(
            f"No server has kept its data in {settings.data}.",
            code="no_database",
            hint="Give the folder that 'iceshelves serve' was started with: --data FOLDER",
        )
    database = Database(settings.database_url or sqlite_url(file))
    try:
        return bootstrap.renew_admin_token(database)
    finally:
        database.close()


def _share_one_arena() -> None:
    """Keep memory small: glibc gives threads heaps of their own, useless under the interpreter's lock."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # other C libraries have no such heaps
        libc.mallopt(_M_ARENA_MAX, 1)


class _Server(uvicorn.Server):
    """Says when it listens, and ends its streams before it waits for them."""

    def __init__(self, app: FastAPI, address: str, tls: Tls | None) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http="httptools",
                ws="websockets-sansio",
                ws_max_size=_MAX_MESSAGE,
                ws_per_message_deflate=False,
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=_GRACE,
                ssl_certfile=None if tls is None else tls.certificate,
                ssl_keyfile=None if tls is None else tls.key,
            )
        )
        self._closing = app.state.services.closing
        self._address = address

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then print the line that scripts wait for."""
        await super().startup(sockets)
        gc.freeze()
        gc.enable()
        if self.started:
            print(f"IceShelves {__version__} ready at {self._address}", flush=True)  # noqa: T201

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let streams end, wait for what is being answered, and be gone within seconds.

        All work is durable and goes on at the next start, so nothing is worth waiting longer for.
        """
        self._closing.begin()
        last_call = threading.Timer(_LAST_CALL, os._exit, (0,))
        last_call.daemon = True
        last_call.start()
        await super().shutdown(sockets)


@contextmanager
def _own(data: Path) -> Iterator[None]:
    """Hold the data folder for this server alone."""
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(data / "server.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise InvalidInput(
            f"The data folder {data} cannot be written to: {error.strerror}.",
            code="data_not_writable",
            hint="Give another folder with --data, or run as a user who may write there.",
        ) from error
    refusal = Conflict(
        f"Another server uses the data folder {data}.",
        code="data_in_use",
        hint="Stop that one first, or give this one a folder of its own with --data.",
    )
    with alone(descriptor, refusal):
        yield


def _url(listener: socket.socket, scheme: str) -> str:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}:{port}/iceshelves"


def _show_token(token: Secret, address: str, file: Path | None) -> None:
    """Show the administrator's token, this once."""
    if file is None:
        print(  # noqa: T201
            f"The administrator's token, shown this once:\n\n    {token.reveal()}\n\n"
            f"Log in with: iceshelves login {address}",
            file=sys.stderr,
            flush=True,
        )
        return
    file.unlink(missing_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(token.reveal() + "\n")


def _new_loop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()
