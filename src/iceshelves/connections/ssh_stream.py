"""One channel of an SSH connection as a transport of asyncio, so that an HTTP client can speak over it.

Bytes are handed on as they come.  What slows one side down reaches the other: a reader that pauses lets
the channel's window (RFC 4254, section 5.2) run out, and a full window pauses our writer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import asyncssh


class Stream(asyncssh.SSHUNIXSession[bytes], asyncio.Transport):
    """To the channel a session, to ``protocol`` a transport.  ``ended`` is called when it is over."""

    def __init__(self, protocol: asyncio.Protocol, ended: Callable[[Stream], None]) -> None:
        asyncio.Transport.__init__(self)
        self._protocol = protocol
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._channel: asyncssh.SSHUNIXChannel[bytes] | None = None
        self._reading = True
        self._over = False

    # What the channel tells

    def connection_made(self, chan: asyncssh.SSHUNIXChannel[bytes]) -> None:
        self._channel = chan
        if self._over:  # whoever asked for it did not wait for the answer
            chan.abort()
        else:
            self._protocol.connection_made(self)

    def data_received(self, data: bytes, datatype: int | None) -> None:
        del datatype
        if self._over:
            return
        try:
            self._protocol.data_received(data)
        except Exception as error:  # noqa: BLE001 (goes to the protocol, as from asyncio's own transports)
            # Raised here, it would end the SSH connection and with it all other streams.
            self._end(error)

    def eof_received(self) -> bool:
        # The daemon has closed its end.  A client of HTTP has nothing more to say then, so we close ours.
        if not self._over:
            self._protocol.eof_received()
            self._end(None)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(None if exc is None else ConnectionResetError(f"the SSH connection was lost: {exc}"))

    def pause_writing(self) -> None:
        if not self._over:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        if not self._over:
            self._protocol.resume_writing()

    # What the protocol asks for

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        # Where the other side has closed already, its end of file or our protocol's loss is on the way.
        if self._channel is not None and not self._over and not self._channel.is_closing():
            self._channel.write(bytes(data))

    def pause_reading(self) -> None:
        self._reading = False
        if self._channel is not None:
            self._channel.pause_reading()

    def resume_reading(self) -> None:
        # The channel hands over what it holds at once, which a protocol does not expect within its own call.
        self._reading = True
        self._loop.call_soon(self._resume)

    def is_reading(self) -> bool:
        return self._reading and not self._over

    def get_write_buffer_size(self) -> int:
        return 0 if self._channel is None or self._over else self._channel.get_write_buffer_size()

    def is_closing(self) -> bool:
        return self._over

    def close(self) -> None:
        """End it.  What is in the channel's window still arrives; what a full window holds back does not,

        for it could hold the channel open for ever.
        """
        self._end(None)

    def abort(self) -> None:
        self._end(None)

    # Inside

    def _resume(self) -> None:
        if self._reading and not self._over and self._channel is not None:
            self._channel.resume_reading()

    def _end(self, error: Exception | None) -> None:
        if self._over:
            return
        self._over = True
        self._ended(self)
        if self._channel is not None:
            self._channel.abort()
            self._loop.call_soon(self._protocol.connection_lost, error)
