"""The Incus provider where the line is bad, the daemon away, or the image without cloud-init."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest

from iceshelves.connections.values import ImageServer, UnixSocket
from iceshelves.core.errors import Conflict, NotFound, Temporary
from iceshelves.providers import base
from iceshelves.providers.base import (
    ExecRequest,
    InstanceSpec,
    InventoryEvent,
    require,
)
from iceshelves.providers.incus import events
from iceshelves.providers.incus.provider import IncusProvider
from real.driving import MARK, connected, instance
from real.incus_proxy import Proxy, proxied
from testbed import images as test_images
from testbed.hosts import Host
from testbed.image_server import SlowImageServer

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


async def test_no_operation_is_ever_read(incus_host: Host, tiny_image: str, tmp_path: Path) -> None:
    async with proxied(str(incus_host.socket), tmp_path) as proxy, connected(proxy.path) as provider:
        async with instance(provider, "no-polling") as spec:
            lifecycle, guest = require(provider, base.Lifecycle), require(provider, base.Guest)
            await lifecycle.start(spec.name)
            async with await guest.exec(spec.name, ExecRequest(["sleep", "0.5"])) as session:
                assert await session.wait() == 0
            await lifecycle.stop(spec.name, grace=10)
            newer = replace(spec, mark=replace(MARK, operation="op2"))
            await require(provider, base.Reconfiguration).rebuild(newer)
        assert proxy.operation_reads == []
        assert len([request for request in proxy.requests if "/1.0/events" in request]) == 1


async def test_a_cut_stream_comes_back_and_each_operation_is_read_once(
    incus_host: Host, tiny_image: str, tmp_path: Path
) -> None:
    async with (
        proxied(str(incus_host.socket), tmp_path) as proxy,
        connected(proxy.path) as provider,
        instance(provider, "cut-stream") as spec,
    ):
        await require(provider, base.Lifecycle).start(spec.name)
        guest = require(provider, base.Guest)
        async with await guest.exec(spec.name, ExecRequest(["sh", "-c", "sleep 2; exit 7"])) as session:
            assert proxy.cut("/1.0/events") == 1
            async with asyncio.timeout(10):
                assert await session.wait() == 7
        assert len(proxy.operation_reads) == 1
        assert len([request for request in proxy.requests if "/1.0/events" in request]) == 2


async def test_a_watcher_is_told_to_look_again_after_a_gap(
    incus_host: Host, tiny_image: str, tmp_path: Path
) -> None:
    async with proxied(str(incus_host.socket), tmp_path) as proxy, connected(proxy.path) as provider:
        told: asyncio.Queue[InventoryEvent] = asyncio.Queue()
        watching = asyncio.create_task(require(provider, base.Inventory).watch(told.put))
        async with asyncio.timeout(5):
            assert (await told.get()).action == "resync"
        proxy.cut("/1.0/events")
        async with asyncio.timeout(5):
            assert (await told.get()).action == "resync"
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def test_work_whose_daemon_stays_away_ends_as_temporary(
    incus_host: Host, tiny_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "PATIENCE", 0.5)
    async with connected(incus_host.socket) as direct, instance(direct, "gone") as spec:
        await require(direct, base.Lifecycle).start(spec.name)
        async with proxied(str(incus_host.socket), tmp_path) as proxy, connected(proxy.path) as provider:
            guest = require(provider, base.Guest)
            async with await guest.exec(spec.name, ExecRequest(["sleep", "30"])) as session:
                await proxy.shut()
                async with asyncio.timeout(8):
                    with pytest.raises(Temporary) as caught:
                        await session.wait()
            assert caught.value.code == "hypervisor_unreachable"


async def test_a_daemon_that_is_gone_is_told_at_once_and_work_goes_on_when_it_is_back(
    incus_host: Host, tiny_image: str, tmp_path: Path
) -> None:
    async with (
        proxied(str(incus_host.socket), tmp_path) as proxy,
        connected(proxy.path) as provider,
        instance(provider, "away") as spec,
    ):
        lifecycle = require(provider, base.Lifecycle)
        await proxy.shut()
        began = time.monotonic()
        for call in (lifecycle.find(spec.name), lifecycle.create(spec), provider.probe()):
            with pytest.raises(Temporary) as caught:
                await call
            assert str(proxy.path) in caught.value.message
        assert time.monotonic() - began < 2
        await proxy.open()
        await lifecycle.start(spec.name)


@pytest.mark.parametrize("action", ["start", "stop"])
async def test_lines_cut_under_way_leave_something_to_continue(
    incus_host: Host, tiny_image: str, tmp_path: Path, action: str
) -> None:
    async with (
        proxied(str(incus_host.socket), tmp_path) as proxy,
        connected(proxy.path) as provider,
        instance(provider, f"cut-{action}") as spec,
    ):
        lifecycle = require(provider, base.Lifecycle)
        if action == "stop":
            await lifecycle.start(spec.name)

        async def act() -> None:
            await (lifecycle.start(spec.name) if action == "start" else lifecycle.stop(spec.name, grace=10))

        task = asyncio.create_task(act())
        for _ in range(5):
            await asyncio.sleep(0.03)
            proxy.cut("")
        try:
            await task
        except Temporary:
            await act()
        found = await lifecycle.find(spec.name)
        assert found is not None
        assert found.power == ("running" if action == "start" else "stopped")


async def test_a_terminal_is_resized_and_its_program_ends_when_it_likes(
    incus_host: Host, tiny_image: str
) -> None:
    async with connected(incus_host.socket) as provider, instance(provider, "terminal") as spec:
        await require(provider, base.Lifecycle).start(spec.name)
        command = ["sh", "-c", "read line; stty size; exit 4"]
        out = b""
        async with asyncio.timeout(10):
            request = ExecRequest(command, terminal=(80, 24))
            async with await require(provider, base.Guest).exec(spec.name, request) as session:
                await session.resize(132, 50)
                await session.write(b"go\n")
                async for _, data in session.output():
                    out += data
                assert await session.wait() == 4
        assert out.split()[-2:] == [b"50", b"132"]


async def test_an_image_without_cloud_init_is_seen(incus_host: Host, plain_image: str) -> None:
    async with connected(incus_host.socket) as provider, instance(provider, "plain", plain_image) as spec:
        assert await require(provider, base.Images).supports_cloud_init(spec.name) is False


async def test_an_image_server_that_does_not_answer_is_told_with_what_was_tried(incus_host: Host) -> None:
    nowhere = ImageServer("nowhere", "https://127.0.0.1:9")
    provider = IncusProvider("incus", UnixSocket(str(incus_host.socket), image_servers=[nowhere]))
    try:
        images = require(provider, base.Images)
        image = await images.resolve("debian/99", "container")
        assert not image.cached
        with pytest.raises(NotFound) as caught:
            await images.ensure(image)
        assert caught.value.code == "image_not_found"
        assert "nowhere: could not be asked" in caught.value.message
        assert any("nowhere:debian/99/cloud" in place for place in caught.value.details["tried"])
    finally:
        await provider.close()


async def test_a_download_is_shared_told_and_cancelled_with_its_last_user(
    incus_host: Host, tiny_image: str
) -> None:
    assert incus_host.cable is not None
    slow = SlowImageServer(test_images.tiny_files())
    async with slow.serving(incus_host.cable.gateway) as url:
        servers = [ImageServer("slow", url)]
        provider = IncusProvider("incus", UnixSocket(str(incus_host.socket), image_servers=servers))
        images = require(provider, base.Images)
        wanted = await images.resolve("slow/1", "container")
        told: list[float | None] = []

        def ensure() -> asyncio.Task[base.Image]:
            return asyncio.create_task(images.ensure(wanted, lambda fraction, _words: told.append(fraction)))

        try:
            users = [ensure(), ensure(), ensure()]
            await asyncio.sleep(1.0)
            for user in users:
                user.cancel()
            await asyncio.gather(*users, return_exceptions=True)
            await asyncio.sleep(0.5)
            assert slow.downloads == 1
            assert not (await images.resolve("slow/1", "container")).cached
            listing = await provider._client.get("/1.0/operations", recursion="1")
            going_on = [operation["description"] for operation in listing.get("running", [])]
            assert "Downloading image" not in going_on

            fetched = await asyncio.gather(ensure(), ensure())
            assert slow.downloads == 2
            assert fetched[0] == fetched[1] == await images.resolve("slow/1", "container")
            assert fetched[0].cached
            assert len({fraction for fraction in told if fraction}) > 5
        finally:
            await provider.close()
        incus_host.cli("image", "delete", fetched[0].fingerprint)


# Somebody else at the other end


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "bad_answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "bad_answer"),
        (b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"type":"other"}'[:-1] + b"}", "bad_answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", "answer_too_large"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "bad_answer"),
    ],
)
async def test_a_peer_that_is_no_incus_is_told_so(tmp_path: Path, answer: bytes, code: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(serve, str(tmp_path / "sock"))
    async with server, connected(tmp_path / "sock") as provider:
        async with asyncio.timeout(5):
            with pytest.raises(Exception) as caught:
                await provider.probe()
        assert getattr(caught.value, "code", None) == code


async def test_a_peer_that_hangs_up_is_temporary(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.transport.abort()

    server = await asyncio.start_unix_server(serve, str(tmp_path / "sock"))
    async with server, connected(tmp_path / "sock") as provider:
        with pytest.raises(Temporary):
            await require(provider, base.Lifecycle).create(
                InstanceSpec("x", "container", base.Image("f" * 64, "x", "container"), MARK)
            )


async def test_rebuild_names_the_conflict_of_snapshots(incus_host: Host, tiny_image: str) -> None:
    async with connected(incus_host.socket) as provider, instance(provider, "snapped") as spec:
        snapshots = require(provider, base.Snapshots)
        await snapshots.create(spec.name, "s1")
        with pytest.raises(Conflict) as caught:
            await require(provider, base.Reconfiguration).validate(spec.name)
        assert caught.value.hint
        await snapshots.delete(spec.name, "s1")


def test_the_proxy_knows_reads_of_operations(tmp_path: Path) -> None:
    proxy = Proxy("", tmp_path)
    identity = "030b30e3-4ea1-418d-a428-0b03dc0bee33"
    proxy.requests = [
        f"GET /1.0/operations/{identity}?project=default",
        f"GET /1.0/operations/{identity}/websocket?secret=x",
        "GET /1.0/operations?recursion=1",
        f"DELETE /1.0/operations/{identity}",
    ]
    assert len(proxy.operation_reads) == 1
