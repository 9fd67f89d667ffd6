"""The socket that a server listens on, taken before anything else is begun."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from iceshelves.core.errors import Conflict, InvalidInput


@contextmanager
def listen(host: str, port: int) -> Iterator[socket.socket]:
    """A socket bound to the address; it is not listening yet.

    Raises :class:`InvalidInput` ``cannot_listen`` and :class:`Conflict` ``address_in_use``.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _cannot_listen(host, port, error) from error
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError as error:
            raise _cannot_listen(host, port, error) from error
        yield listener


def _cannot_listen(host: str, port: int, error: OSError) -> Conflict | InvalidInput:
    if error.errno == errno.EADDRINUSE:
        return Conflict(
            f"Something listens on {host}:{port} already.",
            code="address_in_use",
            hint="Choose another port with --listen HOST:PORT.",
        )
    return InvalidInput(
        f"The server cannot listen on {host}:{port}: {error.strerror or error}.",
        code="cannot_listen",
        hint="Give an address of this machine with --listen HOST:PORT.",
    )
