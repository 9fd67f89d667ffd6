"""The daemon's own socket on this machine."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from aiohttp.client_proto import ResponseHandler

from iceshelves.connections.transport import Factory
from iceshelves.connections.values import UnixSocket

#: where the daemons of each family listen: LXD's snap and Debian's package differ
USUAL_SOCKETS: Final = {
    "incus": ("/var/lib/incus/unix.socket",),
    "lxd": ("/var/snap/lxd/common/lxd/unix.socket", "/var/lib/lxd/unix.socket"),
}


def usual_socket(family: str) -> str:
    """The usual socket that is there, or the most usual one; empty for a family that has none."""
    usual = USUAL_SOCKETS.get(family, ("",))
    return next((path for path in usual if Path(path).is_socket()), usual[0])


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
