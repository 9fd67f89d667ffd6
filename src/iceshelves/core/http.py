"""The one HTTP client set-up: a session per peer, kept open, and answers read within bounds.

A client per call costs about 18 ms for its certificate bundle alone, so whoever talks to a peer holds one
session and closes it.
"""

from __future__ import annotations

from typing import Final

import aiohttp

from iceshelves.core.errors import Failed

#: seconds; connecting is a local matter or a dead peer, so it is far shorter than an answer may take
CONNECT_DEADLINE: Final = 5.0


def open_session(
    connector: aiohttp.BaseConnector, base_url: str, *, deadline: float
) -> aiohttp.ClientSession:
    """A session on ``connector`` whose every call ends within ``deadline`` seconds.

    Must be called in the event loop that will use it.  No cookies are kept and no redirect is followed
    unless a call says so.
    """
    return aiohttp.ClientSession(
        base_url,
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=deadline, sock_connect=CONNECT_DEADLINE),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "iceshelves"},
    )


async def read_bounded(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The whole body, if it has at most ``limit`` bytes.  Raises :class:`Failed` ``answer_too_large``."""
    declared = response.content_length
    if declared is not None and declared > limit:
        raise _too_large(response, limit)
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > limit:
            raise _too_large(response, limit)
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large(response: aiohttp.ClientResponse, limit: int) -> Failed:
    response.close()
    return Failed(
        f"The answer to {response.method} {response.url.path} is larger than {limit} bytes.",
        code="answer_too_large",
        hint="Nothing was kept of it.",
    )
