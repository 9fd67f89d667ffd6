"""The daemon's own socket on this machine."""

from __future__ import annotations

import asyncio

from aiohttp.client_proto import ResponseHandler

from iceshelves.connections.transport import Factory
from iceshelves.connections.values import UnixSocket


class UnixTransport:
    """See :class:`~iceshelves.connections.transport.Transport`."""

    def __init__(self, connection: UnixSocket) -> None:
        self.where = connection.path

    async def dial(self, factory: Factory) -> ResponseHandler:
        """Connect to the socket.  Raises ``OSError``."""
        _, protocol = await asyncio.get_running_loop().create_unix_connection(factory, self.where)
        return protocol

    async def close(self) -> None:
        """Nothing is shared."""
