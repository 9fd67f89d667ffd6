"""The provider on a real LXD where that is not as Incus: a rebuild replaces the instance, in steps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from iceshelves.core.errors import Conflict, NotFound, Unsupported
from iceshelves.providers import base
from iceshelves.providers.base import ExecRequest, InstanceSpec, Provider, Volume, require
from iceshelves.providers.incus.client import path
from iceshelves.providers.incus.provider import IncusProvider
from iceshelves.providers.incus.replacement import Replacement
from iceshelves.providers.incus.server import Server
from real.driving import MARK, address_of, connected, instance
from testbed.hosts import Host

pytestmark = pytest.mark.anyio
NEWER = replace(MARK, operation="op2", revision=2)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def lxd(lxd_host: Host, lxd_tiny_image: str, anyio_backend: str) -> AsyncIterator[IncusProvider]:
    async with connected(lxd_host.socket, "lxd") as provider:
        yield provider


async def names(provider: IncusProvider) -> list[str]:
    """The names that LXD itself has: the inventory calls a successor what it is going to be called."""
    return sorted(found["name"] for found in await provider._client.get_objects(path("instances")))


async def hostname(provider: Provider, name: str) -> bytes:
    told = b""
    async with await require(provider, base.Guest).exec(name, ExecRequest(["hostname"])) as session:
        async for _, data in session.output():
            told += data
    return told


@pytest.mark.parametrize("cut_after", [None, 0.3, 0.8])
async def test_a_replacement_keeps_address_and_volume_however_often_it_is_cut_off(
    lxd: IncusProvider, lxd_host: Host, cut_after: float | None
) -> None:
    async with instance(lxd, "replaced") as made:
        lifecycle, guest = require(lxd, base.Lifecycle), require(lxd, base.Guest)
        await lifecycle.delete(made.name, MARK)
        volume = Volume("data", "/srv/data", 1024 * 1024)
        device = await require(lxd, base.Volumes).ensure(made.name, volume, MARK)
        spec = replace(made, devices={"data": device})
        await lifecycle.create(spec)
        await lifecycle.start(spec.name)
        before = await address_of(lxd, spec.name)
        await guest.write_file(spec.name, "/srv/data/kept", b"kept", 0o600)
        await guest.write_file(spec.name, "/root/old", b"old", 0o600)
        newer = replace(spec, mark=NEWER, config={"user.x": "y"})
        if cut_after is not None:
            task = asyncio.create_task(require(lxd, base.Reconfiguration).rebuild(newer))
            await asyncio.sleep(cut_after)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        async with connected(lxd_host.socket, "lxd") as another:
            rebuilt = await require(another, base.Reconfiguration).rebuild(newer)
        assert (rebuilt.mark, rebuilt.settled, rebuilt.config) == (NEWER, True, {"user.x": "y"})
        await lifecycle.start(spec.name)
        assert await address_of(lxd, spec.name) == before
        assert await guest.read_file(spec.name, "/srv/data/kept", 10) == b"kept"
        with pytest.raises(NotFound):
            await guest.read_file(spec.name, "/root/old", 10)
        assert await hostname(lxd, spec.name) == b"replaced\n"
        assert await names(lxd) == [spec.name]


@pytest.fixture
async def headless(lxd: IncusProvider, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[InstanceSpec]:
    """An instance whose replacement ended between deleting and renaming: only its successor is there."""

    async def power_cut(*_: object) -> None:
        raise ConnectionError("cut")

    async with instance(lxd, "headless") as made:
        with monkeypatch.context() as patch:
            patch.setattr(Replacement, "_rename", power_cut)
            with pytest.raises(ConnectionError):
                await require(lxd, base.Reconfiguration).rebuild(replace(made, mark=NEWER))
        assert await names(lxd) == ["headless-next"]
        yield made


async def test_an_instance_without_its_name_is_there_and_unfinished(
    lxd: IncusProvider, headless: InstanceSpec
) -> None:
    found = await require(lxd, base.Lifecycle).find(headless.name)
    assert found is not None
    assert (found.name, found.mark, found.settled) == (headless.name, NEWER, False)
    await require(lxd, base.Reconfiguration).validate(headless.name)
    # what has its name by chance is not found so
    assert await require(lxd, base.Lifecycle).find("head") is None


@pytest.mark.parametrize("operation", ["op2", "op3"])
async def test_an_instance_without_its_name_is_rebuilt(
    lxd: IncusProvider, headless: InstanceSpec, operation: str
) -> None:
    newer = replace(headless, mark=replace(NEWER, operation=operation))
    rebuilt = await require(lxd, base.Reconfiguration).rebuild(newer)
    assert (rebuilt.name, rebuilt.mark, rebuilt.settled) == (headless.name, newer.mark, True)
    assert await names(lxd) == [headless.name]


async def test_an_instance_without_its_name_is_deleted(lxd: IncusProvider, headless: InstanceSpec) -> None:
    await require(lxd, base.Lifecycle).delete(headless.name, MARK)
    assert await names(lxd) == []


async def test_an_lxd_without_settings_for_cloud_init_is_refused(
    lxd: IncusProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Server.info

    async def info(self: Server) -> base.ServerInfo:
        found = await read(self)
        return replace(found, features=found.features - {"cloud_init"})

    image = await require(lxd, base.Images).resolve("tiny", "container")
    spec = InstanceSpec("old", "container", image, MARK, config={"cloud-init.user-data": "#cloud-config\n"})
    await require(lxd, base.Lifecycle).validate(spec)
    monkeypatch.setattr(Server, "info", info)
    with pytest.raises(Unsupported) as caught:
        await require(lxd, base.Lifecycle).validate(spec)
    assert caught.value.code == "cloud_init_unsupported"


async def test_a_neighbour_with_the_successors_name_is_left_alone(lxd: IncusProvider) -> None:
    lifecycle = require(lxd, base.Lifecycle)
    async with instance(lxd, "pair") as made:
        neighbour = replace(made, name="pair-next", mark=replace(MARK, deployment="other"))
        await lifecycle.create(neighbour)
        try:
            with pytest.raises(Conflict) as caught:
                await require(lxd, base.Reconfiguration).rebuild(replace(made, mark=NEWER))
            assert caught.value.code == "instance_exists"
            await lifecycle.delete(made.name, MARK)
            assert await lifecycle.find(made.name) is None
            assert await names(lxd) == ["pair-next"]
        finally:
            await lifecycle.delete(neighbour.name, neighbour.mark)
