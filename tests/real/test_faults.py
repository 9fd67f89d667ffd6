"""Bad lines on each way to a hypervisor: all ends in success or an error of ours, in time, and nothing twice.

A way is one of :data:`WAYS`: it puts a fault proxy on the line, and gives a connection that leads through.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import pytest

from iceshelves.connections import ssh, ssh_link, transport
from iceshelves.connections.values import Connection, UnixSocket
from iceshelves.core import http
from iceshelves.core.errors import IceShelvesError, Temporary
from iceshelves.providers import base
from iceshelves.providers.base import ExecRequest, InstanceSpec, Mark, Provider, require
from iceshelves.providers.incus import events
from iceshelves.providers.registry import open_provider
from real.driving import connected
from testbed.fault_proxy import (
    BlackHole,
    Cut,
    Fault,
    FaultProxy,
    Garbage,
    HalfClose,
    Late,
    Once,
    Place,
    Reset,
    Sliced,
    SlowClose,
    fault_proxy,
)
from testbed.hosts import Host
from testbed.https import Https
from testbed.sshd import missing_for_sshd, running_sshd

pytestmark = pytest.mark.anyio

#: seconds that a call may take, all its deadlines being as below
LONGEST = 15.0


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def short_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is minutes in use is seconds here; what is waited for, and in which order, stays the same."""
    monkeypatch.setattr(transport, "CALL_DEADLINE", 2.0)
    monkeypatch.setattr(http, "CONNECT_DEADLINE", 1.5)
    monkeypatch.setattr(ssh, "_PATIENCE", 1.3)
    monkeypatch.setattr(ssh, "_LINK_DEADLINE", 3.0)
    monkeypatch.setattr(ssh_link, "_KEEPALIVE", (1, 1))
    monkeypatch.setattr(events, "_HEARTBEAT", 1.0)
    monkeypatch.setattr(events, "PATIENCE", 2.0)


# The ways


@dataclass(frozen=True)
class Bad:
    """``connection`` leads through ``proxy``."""

    proxy: FaultProxy
    connection: Connection


class Way(Protocol):
    """A way to the hypervisor on which proxies can be put, each with a connection of its own.

    ``at_once``: how many may be in trouble together.  What opens a stream to a daemon's socket and says
    nothing holds up all others at that socket, so where a black hole can do that, they take turns.
    """

    @property
    def at_once(self) -> int: ...
    def bad(self) -> AbstractAsyncContextManager[Bad]: ...


@dataclass(frozen=True)
class Through:
    """A proxy before ``target``; ``connection`` leads to it.  One before a socket is put into ``folder``."""

    target: Place
    connection: Callable[[FaultProxy], Connection]
    folder: Path | None = None
    at_once: int = 4

    @asynccontextmanager
    async def bad(self) -> AsyncIterator[Bad]:
        path = None if self.folder is None else self.folder / f"{next(_numbers)}.sock"
        async with fault_proxy(self.target, path) as proxy:
            yield Bad(proxy, self.connection(proxy))


@contextmanager
def over_socket(host: Host, folder: Path) -> Iterator[Way]:
    yield Through(host.socket, lambda proxy: UnixSocket(str(proxy.path), image_servers=()), folder)


@contextmanager
def over_direct(host: Host, folder: Path) -> Iterator[Way]:
    del folder
    api = Https.of(host).joined("faults")
    yield Through((api.host, api.port), lambda proxy: replace(api, host="127.0.0.1", port=proxy.port))


@contextmanager
def over_ssh(host: Host, folder: Path) -> Iterator[Way]:
    del folder
    if reason := missing_for_sshd():
        pytest.skip(f"SSH: {reason}")
    with running_sshd(host) as sshd:

        def connection(proxy: FaultProxy) -> Connection:
            return replace(sshd.connection, hops=(replace(sshd.hop, host="127.0.0.1", port=proxy.port),))

        yield Through((sshd.hop.host, sshd.hop.port), connection, at_once=1)


WAYS: dict[str, Callable[[Host, Path], AbstractContextManager[Way]]] = {
    "socket": over_socket,
    "direct": over_direct,
    "ssh": over_ssh,
}

HARMLESS: dict[str, Fault] = {
    "latency": Late(0.02, jitter=0.02),
    "slices": Sliced(3000),
    "slow close": SlowClose(0.5),
}
HARMFUL: dict[str, tuple[Fault, ...]] = {
    "black holes": (BlackHole(), BlackHole(1500, "down")),
    "resets": (Reset(), Reset(700, "up"), Reset(1500, "down")),
    "cuts": (Cut(), Cut(1, "up"), Cut(1, "down"), Cut(700, "up"), Cut(1500, "down")),
    "garbage": (Garbage(way="up"), Garbage(way="down"), Garbage(1500)),
    "half-closes": (HalfClose(300, "up"), HalfClose(300, "down")),
}


@pytest.fixture(scope="module", params=list(WAYS))
def way(
    request: pytest.FixtureRequest, incus_host: Host, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Way]:
    with WAYS[request.param](incus_host, tmp_path_factory.mktemp(request.param)) as found:
        yield found


@pytest.fixture(scope="module")
def guest(incus_host: Host, tiny_image: str) -> Iterator[str]:
    """A running instance that is there whatever the line does."""
    incus_host.cli("launch", tiny_image, "stands-by")
    yield "stands-by"
    incus_host.cli("delete", "--force", "stands-by")


_numbers: Iterator[int] = itertools.count()


async def a_spec(host: Host) -> InstanceSpec:
    """Something to create, with a mark that nothing else has."""
    number = next(_numbers)
    async with connected(host.socket) as provider:
        image = await require(provider, base.Images).resolve("tiny", "container")
    return InstanceSpec(
        f"fault-{number}", "container", image, Mark("faults", f"d{number}", "op1", 1, "web@1.0.0")
    )


# What is done over them


async def probe(provider: Provider, guest: str, spec: InstanceSpec) -> None:
    assert (await provider.probe()).family == "incus"


async def find(provider: Provider, guest: str, spec: InstanceSpec) -> None:
    assert await require(provider, base.Lifecycle).find(guest) is not None


async def run(provider: Provider, guest: str, spec: InstanceSpec) -> None:
    request = ExecRequest(["sh", "-c", "cat; exit 5"])
    async with await require(provider, base.Guest).exec(guest, request) as session:
        await session.write(b"hello")
        await session.write(b"")
        out = b"".join([data async for _, data in session.output()])
        assert (await session.wait(), out) == (5, b"hello")


async def create(provider: Provider, guest: str, spec: InstanceSpec) -> None:
    lifecycle = require(provider, base.Lifecycle)
    await lifecycle.create(spec)
    await lifecycle.start(spec.name)
    found = await lifecycle.find(spec.name)
    assert found is not None
    assert found.power == "running"


ACTS = (probe, find, run, create)


async def attempted(act: Awaitable[None]) -> IceShelvesError | None:
    """The error that ``act`` ends with, if it is one of ours; any other fails the test, as does no end."""
    async with asyncio.timeout(LONGEST):
        try:
            await act
        except IceShelvesError as error:
            return error
    return None


async def in_the_end(act: Callable[[], Awaitable[None]]) -> None:
    """Try ``act`` again for as long as it says that this is worth it."""
    async with asyncio.timeout(2 * LONGEST):
        while True:
            try:
                return await act()
            except Temporary:
                await asyncio.sleep(0.1)


async def made_of(host: Host, spec: InstanceSpec) -> list[str]:
    """What there is with ``spec``'s mark, seen over a line that is good; and deleted then."""
    async with connected(host.socket) as provider:
        found = await require(provider, base.Inventory).instances()
        ours = [
            one.name for one in found if one.mark is not None and one.mark.deployment == spec.mark.deployment
        ]
        for name in ours:
            await require(provider, base.Lifecycle).delete(name, spec.mark)
    return ours


async def in_groups(size: int, *works: Coroutine[Any, Any, None]) -> None:
    """Do all ``works``, ``size`` at a time; most of their time is waiting for a deadline."""
    room = asyncio.Semaphore(size)

    async def one(work: Coroutine[Any, Any, None]) -> None:
        async with room:
            await work

    async with asyncio.TaskGroup() as group:
        for work in works:
            group.create_task(one(work))


@pytest.mark.parametrize("fault", HARMLESS.values(), ids=HARMLESS)
async def test_a_slow_line_only_takes_longer(fault: Fault, way: Way, incus_host: Host, guest: str) -> None:
    spec = await a_spec(incus_host)
    async with way.bad() as bad:
        bad.proxy.arm(fault)
        provider = open_provider("incus", bad.connection)
        try:
            for act in ACTS:
                assert await attempted(act(provider, guest, spec)) is None
        finally:
            await provider.close()
    assert await made_of(incus_host, spec) == [spec.name]


@pytest.mark.parametrize("faults", HARMFUL.values(), ids=HARMFUL)
async def test_a_broken_line_ends_all_in_words_and_in_time(
    faults: tuple[Fault, ...], way: Way, incus_host: Host, guest: str
) -> None:
    async def broken(fault: Fault, already_open: bool) -> None:
        spec = await a_spec(incus_host)
        async with way.bad() as bad:
            provider = open_provider("incus", bad.connection)
            if already_open:
                await run(provider, guest, spec)
            bad.proxy.arm(fault)
            ends = [await attempted(act(provider, guest, spec)) for act in ACTS]
            assert any(ends), f"{fault} was none"
            bad.proxy.heal()
            await in_the_end(lambda: create(provider, guest, spec))
            await in_the_end(lambda: run(provider, guest, spec))
            async with asyncio.timeout(LONGEST):
                await provider.close()
        assert await made_of(incus_host, spec) == [spec.name], fault

    holes = any(isinstance(fault, BlackHole) for fault in faults)
    works = (broken(fault, already_open) for fault in faults for already_open in (False, True))
    await in_groups(way.at_once if holes else 4, *works)


async def test_a_creation_cut_at_any_byte_makes_one(way: Way, incus_host: Host, guest: str) -> None:
    async def cut(fault: Fault) -> None:
        spec = await a_spec(incus_host)
        async with way.bad() as bad:
            bad.proxy.arm(fault)
            provider = open_provider("incus", bad.connection)
            await in_the_end(lambda: create(provider, guest, spec))
            await provider.close()
        assert await made_of(incus_host, spec) == [spec.name], fault

    places = range(0, 6000, 500)
    await in_groups(4, *(cut(Once(Reset(byte, "up"))) for byte in places))
    await in_groups(4, *(cut(Once(Reset(byte, "down"))) for byte in places))
