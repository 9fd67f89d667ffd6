"""The daemon's socket through SSH: one connection for all streams, made when first needed and made again
when it drops.  The hypervisor needs no listener but its sshd.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from aiohttp.client_proto import ResponseHandler

from iceshelves.connections import ssh_errors
from iceshelves.connections.ssh_keys import Login
from iceshelves.connections.ssh_link import Link, LinkLost, Opening, Route
from iceshelves.connections.transport import Factory
from iceshelves.connections.values import SshSocket

#: seconds for a stream; less than callers wait for one, so that it is us who say what was waited for
_PATIENCE: Final = 4.5
#: seconds for the SSH connection itself, which goes on when those who asked for it have given up
_LINK_DEADLINE: Final = 15.0
#: a connection that turns out to be lost is made again this often, less one
_TRIES: Final = 2


class SshTransport:
    """See :class:`~iceshelves.connections.transport.Transport`."""

    def __init__(self, connection: SshSocket) -> None:
        login = Login(connection.key, connection.agent_socket)
        self._route = Route(connection.hops, connection.path, login)
        self._link: Link | None = None
        self._opening = Opening(self._route)
        self._linking: asyncio.Task[Link] | None = None
        self.where = self._route.where

    async def dial(self, factory: Factory) -> ResponseHandler:
        """A stream to the socket.

        Raises ``Denied`` ``host_key_changed``, ``ssh_denied`` or ``ssh_agent_missing``, ``Temporary``
        ``hypervisor_unreachable``, or ``OSError`` where there is no socket.
        """
        used: Link | None = None
        try:
            async with asyncio.timeout(_PATIENCE):
                for _ in range(_TRIES):
                    used = None
                    used = await self._linked()
                    with suppress(LinkLost):  # that it had dropped showed only now
                        return await used.dial(factory)
        except TimeoutError as error:
            if used is None:
                raise self._opening.silence() from error
            self._drop(used)
            raise ssh_errors.unreachable(self.where, "the SSH connection does not answer") from error
        raise ssh_errors.unreachable(self.where, "the SSH connection was lost")

    async def close(self) -> None:
        """Close the connection with its streams.  A later :meth:`dial` makes a new one."""
        linking, self._linking = self._linking, None
        if linking is not None:
            linking.cancel()
            await asyncio.wait({linking})
        link, self._link = self._link, None
        if link is not None:
            link.close()

    async def _linked(self) -> Link:
        if self._link is not None:
            if self._link.alive:
                return self._link
            self._drop(self._link)  # hosts on the way may still hold their part
        if self._linking is None or self._linking.done():
            self._opening = Opening(self._route)
            self._linking = asyncio.create_task(self._connect(self._opening))
            self._linking.add_done_callback(_retrieve)
        # Others wait for it too, and it is of use to the next caller when this one gives up.
        linking = self._linking
        await asyncio.wait({linking})
        if linking.cancelled():
            raise ssh_errors.unreachable(self.where, "the connection was closed")
        return linking.result()

    async def _connect(self, opening: Opening) -> Link:
        try:
            async with asyncio.timeout(_LINK_DEADLINE):
                self._link = await opening.run()
        except TimeoutError as error:
            raise opening.silence() from error
        return self._link

    def _drop(self, link: Link) -> None:
        """Use it no more.  It is kept for the streams that it has, should they still get through."""
        if self._link is link:
            self._link = None
        link.retire()


def _retrieve(linking: asyncio.Task[Link]) -> None:
    if not linking.cancelled():
        linking.exception()
