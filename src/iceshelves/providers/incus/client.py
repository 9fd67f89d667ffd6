"""Calls to the daemon's REST API: one session, every answer parsed, every refusal one of our errors.

The envelope of an answer is described in Incus' doc/rest-api.md: ``type`` is ``sync`` (``metadata`` holds
the value), ``async`` (``metadata`` holds the operation) or ``error`` (``error`` and ``error_code``).
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import aiohttp
from yarl import URL

from iceshelves.connections.opening import open_transport
from iceshelves.connections.transport import open_hypervisor_session
from iceshelves.connections.values import HypervisorConnection
from iceshelves.core.errors import IceShelvesError
from iceshelves.core.http import read_bounded
from iceshelves.providers.incus import errors

#: bytes; 2,500 instances with recursion are about 12 MB
_ANSWER_LIMIT: Final = 64 * 1024 * 1024
#: seconds without data after which a ping is answered, and seconds after which it is answered anyway
_QUIET: Final = 1.0
_OVERDUE: Final = 4.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A parsed answer: the value or operation, the ETag of what was read, and whether work goes on."""

    metadata: Any
    etag: str
    is_operation: bool


@dataclass(frozen=True, slots=True)
class Call:
    """One request: ``path`` starts with ``/1.0`` and is quoted already (:func:`path`)."""

    method: str
    path: str
    body: Any = None
    etag: str = ""
    query: Mapping[str, str] | None = None


def path(*parts: str) -> str:
    """``/1.0/…`` of ``parts``, each quoted, so that no name from outside can leave its place."""
    return "/1.0/" + "/".join(quote(part, safe="") for part in parts)


class Client:
    """Speaks to one daemon about one project.  Opens its session at the first call."""

    def __init__(self, connection: HypervisorConnection) -> None:
        self._transport = open_transport(connection)
        self._session: aiohttp.ClientSession | None = None
        self.where: Final = self._transport.where
        self.project: Final = connection.project

    async def get(self, where: str, **query: str) -> Any:
        """The value at ``where``."""
        return (await self.call(Call("GET", where, query=query))).metadata

    async def get_object(self, where: str, **query: str) -> dict[str, Any]:
        """The object at ``where``; :class:`Failed` ``bad_answer`` if it is not one."""
        return self.as_object(await self.get(where, **query), where)

    async def get_objects(self, where: str, **query: str) -> list[dict[str, Any]]:
        """The list of objects at ``where``, read with ``recursion=1``."""
        value = await self.get(where, recursion="1", **query)
        if value is None:
            return []
        if not isinstance(value, list):
            raise errors.bad_answer(self.where, f"{where} is not a list")
        return [self.as_object(item, where) for item in value]

    async def call(self, call: Call) -> Answer:
        """Send ``call`` and parse what comes back."""
        headers = {"If-Match": call.etag} if call.etag else {}
        async with self._request(call, headers) as response:
            raw = await read_bounded(response, _ANSWER_LIMIT)
            return self._parse(response, raw)

    async def read_raw(self, call: Call, limit: int) -> tuple[bytes, Mapping[str, str]]:
        """At most ``limit`` bytes of a body that is not an envelope, and its headers."""
        async with self._request(call, {}) as response:
            if response.status != 200:
                self._parse(response, await read_bounded(response, _ANSWER_LIMIT))
                raise errors.bad_answer(self.where, f"status {response.status} for {call.path}")
            data = b""
            while len(data) < limit and (chunk := await response.content.read(limit - len(data))):
                data += chunk
            if not response.content.at_eof():
                response.close()
            return data, response.headers

    async def write_raw(self, call: Call, headers: Mapping[str, str]) -> None:
        """Send ``call``'s body as bytes."""
        async with self._request(call, headers) as response:
            self._parse(response, await read_bounded(response, _ANSWER_LIMIT))

    async def websocket(
        self, where: str, *, heartbeat: float | None = None, **query: str
    ) -> aiohttp.ClientWebSocketResponse:
        """Open a websocket at ``where``; read it with :class:`Incoming`, and close it.

        With ``heartbeat`` a peer that is silent for that many seconds is asked whether it lives; whoever
        wants that must keep reading.
        """
        try:
            return await self._open().ws_connect(
                self._url(where, query),
                max_msg_size=16 * 1024 * 1024,
                heartbeat=heartbeat,
                autoping=False,
                # The daemon does not always answer a farewell; we do not wait long for one.
                timeout=aiohttp.ClientWSTimeout(ws_close=0.5),
            )
        except aiohttp.WSServerHandshakeError as error:
            raise errors.refusal(error.status, error.message) from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise errors.unreachable(self.where, error) from error

    async def close(self) -> None:
        """Close the session; a later call opens a new one."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()
        await self._transport.close()

    def as_object(self, value: Any, what: str) -> dict[str, Any]:
        """``value`` if it is a JSON object."""
        if not isinstance(value, dict):
            raise errors.bad_answer(self.where, f"{what} is not an object")
        return value

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = open_hypervisor_session(self._transport)
        return self._session

    def _url(self, where: str, query: Mapping[str, str] | None) -> URL:
        # Our paths are quoted already; aiohttp would quote '%2F' again or unquote it.
        wanted = dict(query or {})
        if "all-projects" not in wanted:  # the daemons refuse both together
            wanted = {"project": self.project, **wanted}
        return URL(where, encoded=True).with_query(wanted)

    @asynccontextmanager
    async def _request(self, call: Call, headers: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        data: Any = call.body
        if call.body is not None and not isinstance(call.body, bytes | aiohttp.MultipartWriter):
            data = json.dumps(call.body).encode()
            headers = {**headers, "Content-Type": "application/json"}
        try:
            async with self._open().request(
                call.method,
                self._url(call.path, call.query),
                data=data,
                headers=headers,
                allow_redirects=False,
            ) as response:
                yield response
        except IceShelvesError:
            raise
        except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError, OSError, TimeoutError) as error:
            raise errors.unreachable(self.where, error) from error
        except (aiohttp.ClientError, ValueError) as error:
            raise errors.bad_answer(self.where, type(error).__name__) from error

    def _parse(self, response: aiohttp.ClientResponse, raw: bytes) -> Answer:
        try:
            envelope = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise errors.bad_answer(self.where, f"no JSON, status {response.status}") from error
        if not isinstance(envelope, dict):
            raise errors.bad_answer(self.where, "not an object")
        kind = envelope.get("type")
        if kind == "error" or response.status >= 400:
            code = envelope.get("error_code")
            raise errors.refusal(
                code if isinstance(code, int) and code else response.status, str(envelope.get("error", ""))
            )
        if kind not in ("sync", "async"):
            raise errors.bad_answer(self.where, f"type {kind!r}")
        return Answer(envelope.get("metadata"), response.headers.get("ETag", ""), kind == "async")


class Incoming:
    """What comes on a websocket.  A ping is answered once the peer has been quiet since, or at last if not.

    The daemons ping as soon as a stream opens.  Where a short program has ended by then, writing an answer
    fails, and the transport then throws away what it has not read yet: the program's output.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._ping: tuple[bytes, float] | None = None

    async def next(self) -> str | bytes | None:
        """The next text or bytes, ``None`` at the end."""
        while True:
            try:
                message = await self._socket.receive(timeout=None if self._ping is None else _QUIET)
            except TimeoutError:
                await self._pong()
                continue
            if message.type == aiohttp.WSMsgType.PING:
                self._ping = self._ping or (message.data, time.monotonic())
            elif message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                if self._ping is not None and time.monotonic() - self._ping[1] > _OVERDUE:
                    await self._pong()
                data: str | bytes = message.data
                return data
            elif message.type != aiohttp.WSMsgType.PONG:
                return None

    async def _pong(self) -> None:
        ping, self._ping = self._ping, None
        if ping is not None:
            with suppress(ConnectionError):
                await self._socket.pong(ping[0])
