"""The agent's line to the server: every request goes out from here, none comes in."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Final, TypeVar
from urllib.parse import quote

import aiohttp

from iceshelves.agent.identity import Identity
from iceshelves.agent.mirror import Wanted
from iceshelves.core.decode import decode
from iceshelves.core.errors import (
    IceShelvesError,
    InvalidInput,
    Temporary,
    Unauthenticated,
)
from iceshelves.core.http import CONNECT_DEADLINE, read_bounded
from iceshelves.core.together import until_one_ends
from iceshelves.deploy.messages import Enrolled, Enrolment, Poll, PollAnswer

_MAX_ANSWER: Final = 32 * 1024 * 1024
#: seconds that an answer may take beyond the time for which it is held
_ANSWER_SECONDS: Final = 10.0
#: seconds without a byte of an image; the server may be waiting for the image server
_SILENCE: Final = 120.0
_CHUNK: Final = 64 * 1024
_FOR_GOOD: Final = frozenset({"invalid_agent_key", "agent_revoked", "invalid_enrolment"})
T = TypeVar("T")
Dial = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


class Line:
    """One HTTP session, kept open.  Made and used on one event loop."""

    def __init__(self, server: str, authority: str = "") -> None:
        self._server = server.rstrip("/")
        self._tls: ssl.SSLContext | bool = True
        if authority:
            self._tls = _trusting(authority)
        self._session: aiohttp.ClientSession | None = None

    async def enrol(self, enrolment: Enrolment) -> Enrolled:
        """Exchange a one-time token for a key.  Raises :class:`Unauthenticated`, ``Temporary``."""
        raw = await self._post("/api/agent/v1/enroll", enrolment, {}, _ANSWER_SECONDS)
        return _parsed(Enrolled, raw, self._server)

    async def poll(self, identity: Identity, poll: Poll) -> PollAnswer:
        """The one round trip.

        Raises :class:`Unauthenticated` for a key that is not good any more, and ``Temporary`` for what may
        pass: the server is away, or another agent uses the key.
        """
        deadline = poll.hold + _ANSWER_SECONDS
        raw = await self._post("/api/agent/v1/poll", poll, _authorised(identity), deadline)
        return _parsed(PollAnswer, raw, self._server)

    async def carry(self, identity: Identity, stream: str, dial: Dial) -> None:
        """Join a stream that the server asked for to a connection that ``dial`` makes, until either ends.

        It is made with the first byte: the daemons serve nobody else on their socket while somebody who is
        connected has said nothing yet.
        """
        where = f"{self._server}/api/agent/v1/streams/{quote(stream, safe='')}"
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                socket = await self._open().ws_connect(
                    where,
                    headers=_authorised(identity),
                    max_msg_size=_MAX_ANSWER,
                    ssl=self._tls,
                    heartbeat=20.0,
                )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _away(self._server, error) from error
        try:
            first = await socket.receive()
            if first.type is aiohttp.WSMsgType.BINARY:
                reader, writer = await dial()
                try:
                    writer.write(first.data)
                    await until_one_ends(_outward(reader, socket), _inward(socket, writer))
                finally:
                    writer.close()
        finally:
            await socket.close()

    @asynccontextmanager
    async def fetch(self, identity: Identity, wanted: Wanted) -> AsyncIterator[aiohttp.ClientResponse]:
        """What the server answers to a question for a file of an image server, refusals included.

        Raises ``Temporary`` where it cannot be reached or stops in the middle.
        """
        headers = _authorised(identity)
        if wanted.part:
            headers["Range"] = wanted.part
        where = f"{self._server}/api/agent/v1/mirror/{quote(wanted.server, safe='')}"
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_DEADLINE, sock_read=_SILENCE)
        try:
            async with self._open().get(
                where,
                params={"path": wanted.path},
                headers=headers,
                ssl=self._tls,
                allow_redirects=False,
                timeout=timeout,
            ) as response:
                yield response
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _away(self._server, error) from error

    async def close(self) -> None:
        """Hang up."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_DEADLINE),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": "iceshelves-agent"},
            )
        return self._session

    async def _post(
        self, path: str, body: Enrolment | Poll, headers: dict[str, str], deadline: float
    ) -> bytes:
        try:
            async with (
                asyncio.timeout(deadline),
                self._open().post(
                    self._server + path,
                    data=json.dumps(asdict(body)).encode(),
                    headers={**headers, "Content-Type": "application/json"},
                    ssl=self._tls,
                    allow_redirects=False,
                ) as response,
            ):
                raw = await read_bounded(response, _MAX_ANSWER)
                if response.status >= 300:
                    raise _refusal(response.status, raw, self._server)
                return raw
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _away(self._server, error) from error


async def _outward(reader: asyncio.StreamReader, socket: aiohttp.ClientWebSocketResponse) -> None:
    while data := await reader.read(_CHUNK):
        await socket.send_bytes(data)


async def _inward(socket: aiohttp.ClientWebSocketResponse, writer: asyncio.StreamWriter) -> None:
    async for message in socket:
        if message.type is not aiohttp.WSMsgType.BINARY:
            return
        writer.write(message.data)
        await writer.drain()


def _authorised(identity: Identity) -> dict[str, str]:
    return {"Authorization": f"Bearer {identity.key}"}


def _trusting(authority: str) -> ssl.SSLContext:
    """Trust only what the file ``authority`` holds: a certificate of the server itself will do."""
    try:
        context = ssl.create_default_context(cafile=authority)
    except (OSError, ssl.SSLError) as error:
        raise InvalidInput(
            f"{authority} cannot be used as the server's certificate: {error}",
            code="invalid_certificate",
            hint="Give a PEM file with --server-certificate.",
        ) from error
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _parsed(model: type[T], raw: bytes, server: str) -> T:
    try:
        return decode(model, json.loads(raw))
    except ValueError as error:
        raise Temporary(
            f"The answer from {server} is not one of an IceShelves server.",
            code="bad_server_answer",
            hint="Check the address, and what stands between here and there.",
            delay=30.0,
        ) from error


def _refusal(status: int, raw: bytes, server: str) -> IceShelvesError:
    """What the server's refusal means: only that the key is not good any more is for good."""
    try:
        problem = json.loads(raw)
    except ValueError:
        problem = {}
    if not isinstance(problem, dict):
        problem = {}
    words = str(problem.get("detail") or problem.get("title") or f"status {status}")
    code = str(problem.get("error_code") or "server_refused")
    if code in _FOR_GOOD:
        return Unauthenticated(words, code=code, hint=problem.get("hint"))
    return Temporary(f"{server} answers: {words}", code=code, hint=problem.get("hint"), delay=5.0)


def _away(server: str, error: BaseException) -> Temporary:
    return Temporary(
        f"The server {server} cannot be reached: {_reason(error)}.",
        code="server_unreachable",
        hint="It is tried again; what there is to tell is kept.",
        delay=2.0,
    )


def _reason(error: BaseException) -> str:
    """Plain words: aiohttp's own tell of its insides."""
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, OSError) and cause.errno is not None and cause.errno in errno.errorcode:
        return os.strerror(cause.errno)
    return str(cause) or type(cause).__name__
