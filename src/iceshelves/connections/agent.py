"""Streams that an agent carries: it dials us, so no way to the hypervisor need be open."""

from __future__ import annotations

import asyncio

from aiohttp.client_proto import ResponseHandler

from iceshelves.connections.transport import Factory
from iceshelves.connections.values import AgentStream


class AgentTransport:
    """See :class:`~iceshelves.connections.transport.Transport`."""

    def __init__(self, connection: AgentStream) -> None:
        self._connection = connection
        self.where = f"the agent of {connection.name}"

    async def dial(self, factory: Factory) -> ResponseHandler:
        """Ask the agent for a stream.  Raises ``Temporary`` or ``Unsupported``."""
        end = await self._connection.open()
        _, protocol = await asyncio.get_running_loop().create_connection(factory, sock=end)
        return protocol

    async def close(self) -> None:
        """Streams end with their connections."""
