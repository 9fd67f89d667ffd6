"""Images of an image server that only the control plane reaches, deployed on real daemons through agents."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from iceshelves.access import bootstrap
from iceshelves.agent.mirror import Mirror, Wanted
from iceshelves.connections.values import ImageServer
from iceshelves.core.errors import Failed, IceShelvesError, NotFound, Temporary
from iceshelves.deploy.image_mirror import ImageMirror
from iceshelves.store.database import Database, sqlite_url
from iceshelves.store.models import Cluster
from testbed import images
from testbed.hosts import INCUS, LXD, Host, die_with_parent, missing_for_hosts, running_host, wait_until
from testbed.image_server import SlowImageServer, serving_in_a_thread
from testbed.server import Server

from .deploying import egg, names

USER_DATA = "#cloud-config\nruncmd:\n- echo through > /root/through\n"


class InnerAgent:
    """``iceshelves agent`` on ``host`` itself, since the daemon there is to reach its loopback."""

    def __init__(self, host: Host, server: Server, token: str, folder: Path) -> None:
        self._host = host
        self._state = folder / f"agent-{host.name}"
        self._pid = folder / f"agent-{host.name}.pid"
        self._log = folder / f"agent-{host.name}.log"
        url = f"http://{server.address}/iceshelves"
        file = folder / f"token-{host.name}"
        file.write_text(f"{token}\n")
        self._enrolment = ["--server", url, "--enroll", str(file), "--socket", str(host.socket)]

    def start(self) -> None:
        command = [sys.executable, "-m", "iceshelves", "agent", "--state", str(self._state)]
        shell = ["sh", "-c", 'echo $$ >"$0"; exec "$@"', str(self._pid)]
        subprocess.Popen(
            self._host._inside([*shell, *command, *self._enrolment]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._log.open("a"),
            preexec_fn=die_with_parent,
        )  # fmt: skip
        self._enrolment = []

    def stop(self) -> None:
        pid = self._pid.read_text().strip()
        self._host.exec("kill", pid)
        self._host.exec("sh", "-c", f"while kill -0 {pid} 2>/dev/null; do sleep 0.05; done")

    def log(self) -> str:
        return self._log.read_text()


@contextmanager
def serving(host: Host, folder: Path, image_url: str) -> Iterator[tuple[Server, InnerAgent]]:
    """A server at the host's gateway, with the cluster ``site`` that the agent on the host serves."""
    assert host.cable is not None
    server = Server(folder / "data").start(f"{host.cable.gateway}:0")
    try:
        server.import_egg(egg("through", USER_DATA))
        server.post(
            "/clusters",
            name="site",
            provider=host.hypervisor.family,
            connection_method="agent-poll",
            options={"images_through": "server", "image_servers": [{"name": "own", "url": image_url}]},
        )
        agent = InnerAgent(host, server, server.post("/clusters/site/enroll")["token"], folder)
        agent.start()
        try:
            yield server, agent
        finally:
            agent.stop()
    finally:
        server.stop()


@pytest.fixture(scope="module")
def source() -> Iterator[tuple[SlowImageServer, str]]:
    """An image server on this machine's loopback, which no host can reach."""
    if reason := images.missing_for_tiny():
        pytest.skip(f"the tiny image: {reason}")
    slow = SlowImageServer(images.tiny_files())
    with serving_in_a_thread(slow, "127.0.0.1") as url:
        yield slow, url


@pytest.fixture(params=["incus", "lxd"])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    hypervisor = {"incus": INCUS, "lxd": LXD}[request.param]
    if reason := missing_for_hosts(hypervisor):
        pytest.skip(f"a real {hypervisor.family}: {reason}")
    with running_host(f"ismirror-{os.getpid()}-{request.param}", hypervisor) as started:
        yield started


def deploy(server: Server, name: str, image: str) -> dict[str, object]:
    accepted = server.post("/deploy", egg="through", cluster="site", instance_name=name, image=image)
    return server.wait(accepted["operation_id"])


def test_images_come_through_the_server(
    host: Host, source: tuple[SlowImageServer, str], tmp_path: Path
) -> None:
    slow, url = source
    before = slow.downloads
    unreachable = host.exec("python3", "-c", _ASK, f"{url}/streams/v1/index.json", check=False)
    assert unreachable.returncode != 0
    with serving(host, tmp_path, url) as (server, agent):
        operation = deploy(server, "one", "slow/1")
        assert (operation["status"], operation["error"]) == ("succeeded", None), agent.log()
        assert slow.downloads == before + 1
        assert host.cli("exec", "one", "--", "cat", "/root/through").stdout == "through\n"
        [image] = json.loads(host.cli("image", "list", "--format=json").stdout)
        assert image["auto_update"] is False
        # again by a server that has lost its memory, for an agent at another port: nothing is fetched again
        agent.stop()
        server.stop()
        server.start(server.address)
        agent.start()
        wait_until(lambda: server.get("/clusters/site")["health"]["status"] == "active", "the agent")
        operation = deploy(server, "two", "own:slow/1")
        assert (operation["status"], operation["error"]) == ("succeeded", None), agent.log()
        assert slow.downloads == before + 1
        host.cli("delete", "--force", "one", "two")
        host.cli("image", "delete", image["fingerprint"])
        operation = deploy(server, "three", "slow/1")
        assert (operation["status"], operation["error"]) == ("succeeded", None), agent.log()
        assert slow.downloads == before + 1, "it was in the server's cache"
        assert names(host) == ["three"]
        missing = deploy(server, "four", "slow/2")
        assert missing["error"]["code"] == "image_not_found"  # type: ignore[index]
    cached = [path for path in (tmp_path / "data/images").iterdir() if path.suffix == ""]
    assert sorted(path.read_bytes() for path in cached) == sorted(slow.files.values())


# ---- image servers that lead astray; these need no hypervisor


@dataclass
class Wayward:
    """An image server whose files are elsewhere: ``leads`` says where, by path."""

    files: dict[str, bytes]
    leads: dict[str, str] = field(default_factory=dict)
    cut: bool = False

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        application = web.Application()
        application.router.add_get("/{path:.*}", self._answer)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path.lstrip("/")
        if path in self.leads:
            raise web.HTTPFound(self.leads[path])
        if path not in self.files:
            raise web.HTTPNotFound
        if not self.cut:
            return web.Response(body=self.files[path])
        answer = web.StreamResponse()
        answer.content_length = len(self.files[path])
        await answer.prepare(request)
        await answer.write(self.files[path][:5])
        assert request.transport is not None
        request.transport.close()
        return answer


ROOT = b"root file system"
ITEM = {"path": "r", "size": len(ROOT), "sha256": hashlib.sha256(ROOT).hexdigest()}
PRODUCTS = {"products": {"a": {"versions": {"1": {"items": {"r": ITEM}}}}}}
INDEX = {"index": {"images": {"path": "streams/v1/images.json"}}}


def wayward() -> Wayward:
    return Wayward(
        {
            "streams/v1/index.json": json.dumps(INDEX).encode(),
            "streams/v1/images.json": json.dumps(PRODUCTS).encode(),
            "r": ROOT,
            "deep/r": ROOT,
        }
    )


@asynccontextmanager
async def mirror_of(url: str, folder: Path) -> AsyncIterator[ImageMirror]:
    """A mirror for cluster 1, whose image server is at ``url``."""
    database = Database(sqlite_url(folder / "db"))
    database.migrate()
    bootstrap.prepare(database)
    options = {"images_through": "server", "image_servers": [{"name": "own", "url": url}]}
    with database.write() as session:
        session.add(
            Cluster(
                tenant_id=1, name="site", provider="incus", connection_method="agent-poll", endpoint_url="",
                options=options, created_by="admin",
            )
        )  # fmt: skip
    mirror = ImageMirror(database, folder / "images", 10**6)
    try:
        yield mirror
    finally:
        await mirror.close()
        database.close()


async def fetched(mirror: ImageMirror) -> bytes:
    part = await mirror.open(1, "own", "r")
    return b"".join([data async for data in part.chunks])


@pytest.mark.parametrize(
    ("location", "code"),
    [
        ("/deep/r", None),
        ("http://127.0.0.1:1/r", "address_refused"),
        ("http://localhost:1/r", "address_refused"),
        ("http://10.0.0.1/r", "address_refused"),
        ("http://169.254.169.254/latest/meta-data", "address_refused"),
        ("http://[::1]/r", "address_refused"),
        ("file:///etc/passwd", "image_server_refused"),
        ("/r", "image_server_refused"),
        ("", "image_server_refused"),
    ],
)
def test_redirections(tmp_path: Path, location: str, code: str | None) -> None:
    async def story() -> None:
        source = wayward()
        source.leads["r"] = location
        async with source.serving() as url, mirror_of(url, tmp_path) as mirror:
            if code is None:
                assert await fetched(mirror) == ROOT
                return
            with pytest.raises(IceShelvesError) as refused:
                await fetched(mirror)
            assert refused.value.code == code

    asyncio.run(story())


def test_an_image_server_that_goes_away(tmp_path: Path) -> None:
    async def story() -> None:
        source = wayward()
        async with source.serving() as url, mirror_of(url, tmp_path) as mirror:
            await mirror.open(1, "own", "streams/v1/images.json")
            source.cut = True
            with pytest.raises(Temporary) as cut:
                await fetched(mirror)
            assert cut.value.code == "image_server_unreachable"
            del source.files["r"]
            with pytest.raises(NotFound):
                await fetched(mirror)
            source.cut, source.files["r"] = False, ROOT
            assert await fetched(mirror) == ROOT
        async with mirror_of("http://169.254.169.254", tmp_path / "second") as mirror:
            with pytest.raises(Failed) as refused:
                await fetched(mirror)
            assert refused.value.code == "address_refused"
        async with mirror_of(url, tmp_path / "third") as mirror:
            with pytest.raises(Temporary) as away:
                await fetched(mirror)
            assert away.value.code == "image_server_unreachable"

    (tmp_path / "second").mkdir()
    (tmp_path / "third").mkdir()
    asyncio.run(story())


# ---- the agent's side alone


def test_what_is_cut_off_on_the_way_is_not_taken_for_whole() -> None:
    async def story() -> None:
        mirror = Mirror(_half)
        [here] = await mirror.serve([ImageServer("own", "https://own.example.org", strip="x/")])
        assert (here.name, here.strip, here.lasting) == ("own", "x/", False)
        assert here.url.startswith("http://127.0.0.1:")
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{here.url}/streams/v1/index.json") as whole:
                assert (whole.status, await whole.read()) == (206, ROOT)
            async with session.get(f"{here.url}/cut") as cut:
                assert cut.status == 200
                with pytest.raises(aiohttp.ClientPayloadError):
                    await cut.read()
            async with session.get(f"{here.url}/away") as away:
                assert (away.status, await away.text()) == (502, "away")
            async with session.get(f"{here.url}er/r") as unknown:
                assert unknown.status == 404
            async with session.post(f"{here.url}/r") as refused:
                assert refused.status == 405
        await mirror.close()

    asyncio.run(story())


class _Answer:
    """What the server answers: ``cut`` breaks off."""

    def __init__(self, path: str) -> None:
        self._cut = path == "cut"
        self.status = 200 if self._cut else 206
        self.headers = {"Content-Length": str(len(ROOT))}
        self.content = self

    async def iter_chunked(self, _size: int) -> AsyncIterator[bytes]:
        yield ROOT[:5]
        if self._cut:
            raise Temporary("cut", code="server_unreachable")
        yield ROOT[5:]


@asynccontextmanager
async def _half(wanted: Wanted) -> AsyncIterator[Any]:
    assert wanted.server == "own"
    if wanted.path == "away":
        raise Temporary("away", code="server_unreachable")
    yield _Answer(wanted.path)


_ASK = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=3).read()"
