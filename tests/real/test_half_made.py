"""What a crash of the hypervisor left of an instance is told from one that is whole, and made anew."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from iceshelves.core.errors import Conflict
from iceshelves.providers import base
from iceshelves.providers.base import require
from real.driving import MARK, connected, instance
from testbed.hosts import Host

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["incus", "lxd"])
def host(request: pytest.FixtureRequest) -> Host:
    request.getfixturevalue("tiny_image" if request.param == "incus" else "lxd_tiny_image")
    found: Host = request.getfixturevalue(f"{request.param}_host")
    return found


def uuid_of(host: Host, name: str) -> str:
    found = json.loads(host.cli("query", f"/1.0/instances/{name}").stdout)
    uuid: str = found["config"]["volatile.uuid"]
    return uuid


async def test_half_an_instance_is_made_anew(host: Host) -> None:
    async with connected(host.socket, host.hypervisor.family) as provider, instance(provider, "half") as spec:
        lifecycle = require(provider, base.Lifecycle)
        whole = uuid_of(host, "half")
        assert (await lifecycle.create(spec)).power == "stopped"
        assert uuid_of(host, "half") == whole
        # as after a crash before the root file system was there: the last note of a creation is missing
        host.cli("config", "unset", "half", "volatile.apply_template")
        with pytest.raises(Conflict):
            await lifecycle.create(replace(spec, mark=replace(MARK, operation="op2")))
        assert uuid_of(host, "half") == whole
        made = await lifecycle.create(spec)
        assert (made.mark, made.power) == (MARK, "stopped")
        assert uuid_of(host, "half") != whole


async def test_one_that_was_started_is_whole(host: Host) -> None:
    async with connected(host.socket, host.hypervisor.family) as provider, instance(provider, "ran") as spec:
        lifecycle = require(provider, base.Lifecycle)
        first = uuid_of(host, "ran")
        for grace in (0.0, 10.0):
            await lifecycle.start(spec.name)
            assert (await lifecycle.create(spec)).power == "running"
            await lifecycle.stop(spec.name, grace=grace)
            assert (await lifecycle.create(spec)).power == "stopped"
        newer = replace(spec, mark=replace(MARK, operation="op2"))
        await require(provider, base.Reconfiguration).rebuild(newer)
        rebuilt = uuid_of(host, "ran")
        assert (await lifecycle.create(newer)).power == "stopped"
        assert uuid_of(host, "ran") == rebuilt
        assert (first == rebuilt) is (host.hypervisor.family == "incus")
