"""The one place where a connection becomes an HTTP session and a name for it in messages."""

from __future__ import annotations

from typing import Final

import aiohttp

from iceshelves.core.http import open_session
from iceshelves.providers.connection import UnixSocket

#: seconds for one call; long work is an operation, whose end comes by the event stream
CALL_DEADLINE: Final = 60.0


def open_hypervisor_session(connection: UnixSocket) -> aiohttp.ClientSession:
    """A session to the daemon.  Its base URL's host is never resolved: the connector knows the way."""
    # Each exec holds four websockets, so the usual limit of 100 connections would starve plain calls.
    connector = aiohttp.UnixConnector(path=connection.path, limit=0)
    return open_session(connector, "http://hypervisor", deadline=CALL_DEADLINE)


def describe(connection: UnixSocket) -> str:
    """The connection in a user's words."""
    return connection.path
