"""A unix socket in front of another that counts requests and can be cut, as a bad line would be."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

_REQUEST = re.compile(rb"^(GET|PUT|POST|PATCH|DELETE) (\S+) HTTP/1\.1\r$", re.MULTILINE)
_OPERATION = re.compile(r"GET /1\.0/operations/[0-9a-f-]{36}(\?|$)")


class Proxy:
    """Passes bytes both ways.  ``requests`` holds what was asked, as ``GET /1.0/…``."""

    def __init__(self, target: str, path: Path) -> None:
        self.path = path
        self.requests: list[str] = []
        self._target = target
        self._server: asyncio.Server | None = None
        self._lines: list[tuple[list[str], asyncio.StreamWriter, asyncio.StreamWriter]] = []

    @property
    def operation_reads(self) -> list[str]:
        """Requests that read one operation; opening its websockets is none."""
        return [request for request in self.requests if _OPERATION.match(request)]

    async def open(self) -> None:
        self.path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, str(self.path))

    async def shut(self) -> None:
        """Nobody listens any more, and every line is cut."""
        if self._server is not None:
            self._server.close()
        self.cut("")
        self.path.unlink(missing_ok=True)

    def cut(self, part: str) -> int:
        """Cut all lines on which something with ``part`` was asked; how many that were."""
        lines = [line for line in self._lines if any(part in asked for asked in line[0])]
        for _, inner, outer in lines:
            inner.transport.abort()
            outer.transport.abort()
        return len(lines)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            behind, onward = await asyncio.open_unix_connection(self._target)
        except OSError:
            writer.transport.abort()
            return
        asked: list[str] = []
        line = (asked, writer, onward)
        self._lines.append(line)
        try:
            await asyncio.gather(self._pass(reader, onward, asked), self._pass(behind, writer, None))
        finally:
            self._lines.remove(line)

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: list[str] | None
    ) -> None:
        try:
            while data := await reader.read(65536):
                if asked is not None:
                    found = [b" ".join(match.groups()).decode() for match in _REQUEST.finditer(data)]
                    asked.extend(found)
                    self.requests.extend(found)
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def proxied(target: str, folder: Path) -> AsyncIterator[Proxy]:
    """A proxy in front of ``target``, open."""
    proxy = Proxy(target, folder / "proxy.sock")
    await proxy.open()
    try:
        yield proxy
    finally:
        await proxy.shut()
