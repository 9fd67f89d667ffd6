"""The one seam between an HTTP client and the way its bytes take."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol

import aiohttp
from aiohttp.client_proto import ResponseHandler

from iceshelves.core.http import open_session

#: seconds for one call; long work is an operation, whose end comes by the event stream
CALL_DEADLINE: Final = 60.0

Factory = Callable[[], ResponseHandler]


class Transport(Protocol):
    """A way to one hypervisor.  Lives on one event loop, and opens nothing before it is first used."""

    @property
    def where(self) -> str:
        """The way in a user's words, for messages: ``/run/incus.sock``, ``https://host:8443``…"""
        ...

    async def dial(self, factory: Factory) -> ResponseHandler:
        """A new connection to the daemon's HTTP API, spoken by the protocol that ``factory`` makes.

        Raises an error of our tree that names the reason (``Denied`` for a wrong pin or a refused key,
        ``Temporary`` for what may pass), or ``OSError``, which the caller puts into words.
        """
        ...

    async def close(self) -> None:
        """Give back what is shared by the connections.  A later :meth:`dial` begins anew."""
        ...


def open_hypervisor_session(transport: Transport) -> aiohttp.ClientSession:
    """An HTTP session whose connections ``transport`` dials; the host of its base URL is never resolved."""
    return open_session(_Connector(transport), "http://hypervisor", deadline=CALL_DEADLINE)


class _Connector(aiohttp.BaseConnector):
    """aiohttp's pool over connections of ours.  ``_create_connection`` is what its own kinds override."""

    def __init__(self, transport: Transport) -> None:
        # Each exec holds four websockets, so the usual limit of 100 connections would starve plain calls.
        # A cluster is probed twice a minute: its connection lives on between two probes.
        super().__init__(limit=0, keepalive_timeout=60.0)
        self._transport = transport

    async def _create_connection(self, req: Any, traces: Any, timeout: aiohttp.ClientTimeout) -> Any:
        del req, traces
        try:
            async with asyncio.timeout(timeout.sock_connect):
                return await self._transport.dial(self._factory)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError(
                f"no connection within {timeout.sock_connect:.0f} s"
            ) from error
