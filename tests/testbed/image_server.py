"""A slow image server, so that a download can be seen, shared and cancelled half way."""

from __future__ import annotations

import asyncio
import hashlib
import os
import platform
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from aiohttp import web


class SlowImageServer:
    """A SimpleStreams server with one image, ``slow/1/cloud``, whose root file system takes three seconds."""

    def __init__(self, files: tuple[Path, Path]) -> None:
        metadata, root = files
        self.files = {"/metadata": metadata.read_bytes(), "/root": root.read_bytes() + os.urandom(4096)}
        self.downloads = 0

    @asynccontextmanager
    async def serving(self, address: str) -> AsyncIterator[str]:
        application = web.Application()
        application.router.add_get("/{path:.*}", self._answer)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, address, 0)
        await site.start()
        try:
            yield f"http://{address}:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/streams/v1/index.json":
            entry = {"datatype": "image-downloads", "path": "streams/v1/images.json", "products": ["slow"]}
            return web.json_response({"format": "index:1.0", "index": {"images": entry}})
        if request.path == "/streams/v1/images.json":
            return web.json_response(self._products())
        answer = web.StreamResponse()
        data = self.files[request.path]
        answer.content_length = len(data)
        await answer.prepare(request)
        self.downloads += request.path == "/root"
        try:
            for start in range(0, len(data), len(data) // 30 + 1):
                await answer.write(data[start : start + len(data) // 30 + 1])
                await asyncio.sleep(0.1 if request.path == "/root" else 0)
        except ConnectionError:
            return answer
        return answer

    def _products(self) -> dict[str, object]:
        def digest(data: bytes) -> str:
            return hashlib.sha256(data).hexdigest()

        metadata, root = self.files["/metadata"], self.files["/root"]
        described = {
            "path": "metadata",
            "size": len(metadata),
            "sha256": digest(metadata),
            "combined_squashfs_sha256": digest(metadata + root),
        }
        items = {
            "incus.tar.xz": {"ftype": "incus.tar.xz", **described},
            "lxd.tar.xz": {"ftype": "lxd.tar.xz", **described},
            "root.squashfs": {"ftype": "squashfs", "path": "root", "size": len(root), "sha256": digest(root)},
        }
        architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
        product = {
            "aliases": "slow/1/cloud",
            "arch": architecture,
            "os": "slow",
            "release": "1",
            "release_title": "1",
            "versions": {"20260101": {"items": items}},
        }
        return {"format": "products:1.0", "datatype": "image-downloads", "products": {"slow": product}}


@contextmanager
def serving_in_a_thread(server: SlowImageServer, address: str) -> Iterator[str]:
    """The server's URL, for tests that block."""
    ready, done = threading.Event(), threading.Event()
    urls: list[str] = []

    async def serve() -> None:
        async with server.serving(address) as url:
            urls.append(url)
            ready.set()
            await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    ready.wait(10)
    try:
        yield urls[0]
    finally:
        done.set()
        thread.join()
