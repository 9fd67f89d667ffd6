"""One SSH connection for all streams: made once, made again when lost, given up when silent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from iceshelves.connections import ssh
from iceshelves.connections.ssh_link import LinkLost
from iceshelves.connections.values import SshHop, SshSocket
from iceshelves.core.errors import Denied, IceShelvesError, Temporary

pytestmark = pytest.mark.anyio

HOPS = (SshHop("jump.example", "me", "ssh-ed25519 AAAA"), SshHop("2001:db8::1", "root", "", 2222))
CONNECTION = SshSocket(HOPS, "/run/incus.sock")


class FakeLink:
    """A link whose dials end as ``dials`` say; ``"wait"`` is one that gets no answer."""

    def __init__(self, *dials: str | Exception) -> None:
        self.alive = True
        self.retired = self.closed = 0
        self._dials = list(dials)

    async def dial(self, factory: Callable[[], Any]) -> Any:
        end = self._dials.pop(0) if self._dials else "open"
        if isinstance(end, Exception):
            self.alive = False
            raise end
        if end == "wait":
            await asyncio.Event().wait()
        return factory()

    def retire(self) -> None:
        self.alive = False
        self.retired += 1

    def close(self) -> None:
        self.alive = False
        self.closed += 1


class World:
    """Hands out ``links`` one after the other, each after ``seconds``; counts the attempts."""

    def __init__(self, *links: FakeLink | Exception, seconds: float = 0.0) -> None:
        self.links = list(links)
        self.seconds = seconds
        self.attempts = 0

    def opening(self, route: Any) -> Any:
        return FakeOpening(self)


class FakeOpening:
    def __init__(self, world: World) -> None:
        self._world = world

    async def run(self) -> FakeLink:
        self._world.attempts += 1
        await asyncio.sleep(self._world.seconds)
        link = self._world.links.pop(0)
        if isinstance(link, Exception):
            raise link
        return link

    def silence(self) -> IceShelvesError:
        return Temporary("jump.example: no answer")


@pytest.fixture
def transport_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[World], ssh.SshTransport]:
    def make(world: World) -> ssh.SshTransport:
        monkeypatch.setattr(ssh, "Opening", world.opening)
        return ssh.SshTransport(CONNECTION)

    return make


MakeTransport = Callable[[World], ssh.SshTransport]


def stream() -> Any:
    return cast(Any, object())


async def test_where_it_leads_is_told_as_an_address(transport_of: MakeTransport) -> None:
    assert transport_of(World()).where == "ssh://root@[2001:db8::1]:2222/run/incus.sock"


async def test_twenty_at_once_make_one_connection(transport_of: MakeTransport) -> None:
    world = World(FakeLink(), seconds=0.01)
    transport = transport_of(world)
    assert len(await asyncio.gather(*(transport.dial(stream) for _ in range(20)))) == 20
    await transport.dial(stream)
    assert world.attempts == 1


async def test_all_who_wait_hear_why_it_failed_and_the_next_tries_anew(transport_of: MakeTransport) -> None:
    world = World(Denied("no", code="ssh_denied"), FakeLink(), seconds=0.01)
    transport = transport_of(world)
    ends = await asyncio.gather(*(transport.dial(stream) for _ in range(3)), return_exceptions=True)
    assert [getattr(end, "code", None) for end in ends] == ["ssh_denied"] * 3
    await transport.dial(stream)
    assert world.attempts == 2


async def test_one_that_is_cancelled_takes_nobody_along(transport_of: MakeTransport) -> None:
    world = World(FakeLink(), seconds=0.02)
    transport = transport_of(world)
    first, second = (asyncio.create_task(transport.dial(stream)) for _ in range(2))
    await asyncio.sleep(0.005)
    first.cancel()
    await second
    assert first.cancelled()
    assert world.attempts == 1


async def test_a_connection_that_outlasts_its_caller_serves_the_next(
    transport_of: MakeTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "_PATIENCE", 0.01)
    world = World(FakeLink(), seconds=0.02)
    transport = transport_of(world)
    with pytest.raises(Temporary, match="no answer"):
        await transport.dial(stream)
    await asyncio.sleep(0.02)
    await transport.dial(stream)
    assert world.attempts == 1


async def test_no_attempt_lasts_for_ever(
    transport_of: MakeTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "_LINK_DEADLINE", 0.01)
    world = World(FakeLink(), FakeLink(), seconds=60)
    transport = transport_of(world)
    with pytest.raises(Temporary, match="no answer"):
        await transport.dial(stream)
    world.seconds = 0
    await transport.dial(stream)
    assert world.attempts == 2


async def test_a_lost_connection_is_made_again_within_the_same_dial(transport_of: MakeTransport) -> None:
    lost = FakeLink("open", LinkLost())
    world = World(lost, FakeLink())
    transport = transport_of(world)
    await transport.dial(stream)
    await transport.dial(stream)
    assert world.attempts == 2
    assert lost.retired  # so that hosts on the way do not keep their part of it


async def test_a_server_that_drops_each_connection_is_not_asked_for_ever(transport_of: MakeTransport) -> None:
    world = World(*(FakeLink(LinkLost()) for _ in range(5)))
    with pytest.raises(Temporary) as caught:
        await transport_of(world).dial(stream)
    assert caught.value.code == "hypervisor_unreachable"
    assert "the SSH connection was lost" in caught.value.message
    assert world.attempts == 2


async def test_a_silent_connection_is_replaced_and_kept_for_its_streams(
    transport_of: MakeTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "_PATIENCE", 0.02)
    silent, fresh = FakeLink("open", "wait"), FakeLink()
    world = World(silent, fresh)
    transport = transport_of(world)
    await transport.dial(stream)
    with pytest.raises(Temporary, match="does not answer"):
        await transport.dial(stream)
    await transport.dial(stream)
    assert (silent.retired, silent.closed, fresh.retired) == (1, 0, 0)
    assert world.attempts == 2


async def test_the_last_to_give_up_does_not_drop_the_new_connection(
    transport_of: MakeTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "_PATIENCE", 0.03)
    silent, fresh = FakeLink("open", "wait", "wait"), FakeLink()
    transport = transport_of(World(silent, fresh))
    await transport.dial(stream)
    first = asyncio.create_task(transport.dial(stream))
    await asyncio.sleep(0.015)
    second = asyncio.create_task(transport.dial(stream))
    with pytest.raises(Temporary):
        await first
    await transport.dial(stream)
    with pytest.raises(Temporary):
        await second
    assert fresh.alive


async def test_closing_ends_attempts_and_connection_and_a_later_dial_begins_anew(
    transport_of: MakeTransport,
) -> None:
    first, second = FakeLink(), FakeLink()
    world = World(first, second)
    transport = transport_of(world)
    await transport.dial(stream)
    await transport.close()
    assert first.closed == 1
    world.seconds = 60
    waiting = asyncio.create_task(transport.dial(stream))
    await asyncio.sleep(0.01)
    await transport.close()
    with pytest.raises(Temporary, match="closed"):
        await waiting
    world.seconds = 0
    await transport.dial(stream)
    assert world.attempts == 3
