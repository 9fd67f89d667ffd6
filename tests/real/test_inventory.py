"""The list of instances and adoption, beside the stock client of a real Incus and a real LXD."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from iceshelves.access import bootstrap
from iceshelves.access.policy import Actor, Role
from iceshelves.clusters.health import Finding, Health, record
from iceshelves.clusters.inventory import record_full, record_some
from iceshelves.core import clock
from iceshelves.core.errors import Conflict
from iceshelves.core.settings import Settings
from iceshelves.deploy.control import ControlPlane
from iceshelves.providers import base
from iceshelves.providers.base import Instance, InstanceSpec, ServerInfo, Volume, require
from iceshelves.store.database import Database
from iceshelves.store.models import Cluster, KnownInstance
from real.driving import MARK
from real.incus_proxy import Proxy, proxied
from testbed import images
from testbed.cluster import Cluster as Machines
from testbed.cluster import running_cluster
from testbed.engine import IdleEngine
from testbed.hosts import INCUS, LXD, Host, Hypervisor, missing_for_hosts

pytestmark = pytest.mark.anyio
ADMIN = Actor(1, 1, "admin", Role.ADMIN)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["incus", "lxd"])
def host(request: pytest.FixtureRequest) -> Host:
    """A host that has the image ``tiny`` and nothing else."""
    prefix = "" if request.param == "incus" else "lxd_"
    request.getfixturevalue(f"{prefix}tiny_image")
    found: Host = request.getfixturevalue(f"{request.param}_host")
    return found


@dataclass
class Watched:
    """A control plane that watches ``host`` over ``proxy``."""

    control: ControlPlane
    host: Host
    proxy: Proxy
    cluster_id: int

    async def cli(self, *arguments: str, check: bool = True) -> str:
        """What the stock client does, past the proxy."""
        return (await asyncio.to_thread(self.host.cli, *arguments, check=check)).stdout

    async def raw(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(await self.cli("query", f"/1.0/instances/{name}"))
        return found

    def known(self) -> dict[str, tuple[str, str]]:
        """Power and ownership by name."""
        with self.control.database.read() as session:
            rows = session.execute(sa.select(KnownInstance)).scalars()
            return {row.name: (row.power, row.ownership) for row in rows}

    async def until(self, condition: Callable[[dict[str, tuple[str, str]]], bool], seconds: float) -> float:
        """Seconds until what is known is as it should be."""
        began = time.monotonic()
        while not condition(found := await asyncio.to_thread(self.known)):
            assert time.monotonic() - began < seconds, found
            await asyncio.sleep(0.02)
        return time.monotonic() - began

    async def status(self, wanted: str, seconds: float) -> str:
        """Wait for the cluster's status; its message."""
        async with asyncio.timeout(seconds):
            while True:
                with self.control.database.read() as session:
                    cluster = session.get_one(Cluster, self.cluster_id)
                if cluster.status == wanted:
                    return cluster.status_message
                await asyncio.sleep(0.1)

    @property
    async def provider(self) -> base.Provider:
        return await self.control._providers.get(self.cluster_id)


@pytest.fixture
async def watched(host: Host, tmp_path: Path) -> AsyncIterator[Watched]:
    async with proxied(str(host.socket), tmp_path) as proxy, started(host, proxy, tmp_path) as made:
        yield made
        for name in (await made.cli("list", "--format=csv", "--columns=n")).split():
            await made.cli("delete", "--force", name)


@asynccontextmanager
async def started(host: Host, proxy: Proxy, tmp_path: Path) -> AsyncIterator[Watched]:
    control = ControlPlane(Settings(data=tmp_path / "data", health_interval=1.0), IdleEngine())
    with control.database.write() as session:
        cluster = Cluster(
            tenant_id=1, name="real", provider=host.hypervisor.family, connection_method="unix-socket",
            endpoint_url=str(proxy.path), created_by="admin",
        )  # fmt: skip
        session.add(cluster)
        session.flush()
        cluster_id = cluster.id
    await control.start()
    try:
        yield Watched(control, host, proxy, cluster_id)
    finally:
        await control.stop()


async def test_what_the_stock_client_changes_is_listed_within_two_seconds(watched: Watched) -> None:
    await watched.cli("init", "tiny", "one")
    took = [await watched.until(lambda known: known == {"one": ("stopped", "foreign")}, 5)]
    for action, expected in (
        (("start", "one"), {"one": ("running", "foreign")}),
        (("stop", "--force", "one"), {"one": ("stopped", "foreign")}),
        (("rename", "one", "two"), {"two": ("stopped", "foreign")}),
        (("copy", "two", "three"), {"two": ("stopped", "foreign"), "three": ("stopped", "foreign")}),
        (("delete", "two"), {"three": ("stopped", "foreign")}),
    ):
        await watched.cli(*action)
        took.append(await watched.until(lambda known, expected=expected: known == expected, 5))
    assert max(took) < 2.0
    # each by itself, after the one full read at the start
    full = [request for request in watched.proxy.requests if "GET /1.0/instances?" in request]
    assert len(full) == 1


async def test_what_happens_while_the_line_is_cut_is_reconciled(watched: Watched) -> None:
    await watched.cli("init", "tiny", "before")
    await watched.until(lambda known: "before" in known, 5)
    watched.proxy.cut("/1.0/events")
    await watched.cli("init", "tiny", "meanwhile")
    await watched.until(lambda known: "meanwhile" in known, 5)
    await watched.proxy.shut()
    await watched.cli("delete", "before")
    await watched.cli("init", "tiny", "away")
    await watched.status("error", 5)
    assert set(watched.known()) == {"before", "meanwhile"}  # as it was last seen
    await watched.proxy.open()
    await watched.until(lambda known: set(known) == {"meanwhile", "away"}, 12)


@pytest.mark.parametrize("power", ["stopped", "running"])
async def test_adopting_adds_the_mark_alone_and_releasing_leaves_no_trace(
    watched: Watched, power: str
) -> None:
    await watched.cli("init", "tiny", "theirs", "-c", "limits.processes=77", "-c", "user.note=by hand")
    await watched.cli("config", "device", "add", "theirs", "extra", "none")
    if power == "running":
        await watched.cli("start", "theirs")
        await watched.until(lambda known: known.get("theirs") == ("running", "foreign"), 5)
    before = await watched.raw("theirs")
    adoptions, key = watched.control.adoptions, watched.cluster_id
    assert (await adoptions.scan(ADMIN, key)).counts["foreign"] == 1
    assert await watched.raw("theirs") == before
    for _ in range(2):
        assert [outcome.error for outcome in await adoptions.adopt(ADMIN, key, ["theirs"])] == [None]
    after = await watched.raw("theirs")
    added = {name: after["config"].pop(name) for name in after["config"].keys() - before["config"].keys()}
    after["expanded_config"] = {k: v for k, v in after["expanded_config"].items() if k not in added}
    assert sorted(added) == ["user.iceshelves.deployment", "user.iceshelves.installation"]
    assert after == before
    await watched.until(lambda known: known == {"theirs": (power, "adopted")}, 5)
    for _ in range(2):
        assert [outcome.error for outcome in await adoptions.release(ADMIN, key, ["theirs"])] == [None]
    assert await watched.raw("theirs") == before
    await watched.until(lambda known: known == {"theirs": (power, "foreign")}, 5)


async def test_a_copy_of_an_adopted_one_is_a_conflict_until_one_is_released(watched: Watched) -> None:
    await watched.cli("init", "tiny", "first")
    await watched.control.adoptions.adopt(ADMIN, watched.cluster_id, ["first"])
    await watched.cli("copy", "first", "second")
    await watched.until(lambda known: {own for _, own in known.values()} == {"conflict"}, 5)
    await watched.control.adoptions.release(ADMIN, watched.cluster_id, ["second"])
    await watched.until(
        lambda known: known == {"first": ("stopped", "adopted"), "second": ("stopped", "foreign")}, 5
    )


async def test_what_is_not_a_deployments_own_is_never_changed_or_deleted(watched: Watched) -> None:
    await watched.cli("init", "tiny", "foreign")
    await watched.cli("init", "tiny", "adopted")
    await watched.cli("init", "tiny", "alien", "-c", "user.iceshelves.installation=another", "-c",
                      f"user.iceshelves.deployment={MARK.deployment}")  # fmt: skip
    await watched.control.adoptions.adopt(ADMIN, watched.cluster_id, ["adopted"])
    provider = await watched.provider
    lifecycle = require(provider, base.Lifecycle)
    image = await require(provider, base.Images).resolve("tiny", "container")
    for name in ("foreign", "adopted", "alien"):
        before = await watched.raw(name)
        spec = InstanceSpec(name, "container", image, MARK)
        for refused, code in (
            (lifecycle.delete(name, MARK), "not_ours"),
            (lifecycle.create(spec), "instance_exists"),
            (require(provider, base.Reconfiguration).rebuild(spec), "not_ours"),
        ):
            with pytest.raises(Conflict) as caught:
                await refused
            assert caught.value.code == code
        assert await watched.raw(name) == before
    (outcome,) = await watched.control.adoptions.adopt(ADMIN, watched.cluster_id, ["alien"])
    assert outcome.error is not None
    assert outcome.error.code == "not_ours"


async def test_a_volume_without_our_mark_is_left_alone(watched: Watched) -> None:
    await watched.cli("storage", "volume", "create", "default", "theirs-data")
    try:
        volumes = require(await watched.provider, base.Volumes)
        with pytest.raises(Conflict):
            await volumes.ensure("theirs", Volume("data", "/data", 1024**2), MARK)
        await volumes.delete_all(replace(MARK, deployment="dep"))
        listed = json.loads(await watched.cli("storage", "volume", "list", "default", "--format=json"))
        assert "theirs-data" in [volume["name"] for volume in listed]
    finally:
        await watched.cli("storage", "volume", "delete", "default", "theirs-data")


@pytest.fixture(params=[INCUS, LXD], ids=lambda hypervisor: hypervisor.family)
def cluster(request: pytest.FixtureRequest) -> Iterator[Machines]:
    hypervisor: Hypervisor = request.param
    if reason := missing_for_hosts(hypervisor) or images.missing_for_tiny():
        pytest.skip(f"a cluster of {hypervisor.family}: {reason}")
    with running_cluster(hypervisor) as running:
        running.first.import_image(images.tiny_files(), "tiny")
        yield running


@pytest.mark.slow
async def test_a_member_that_is_away_degrades_its_cluster_and_nobody_forgets_whose_its_instances_are(
    cluster: Machines, tmp_path: Path
) -> None:
    async with (
        proxied(str(cluster.first.socket), tmp_path) as proxy,
        started(cluster.first, proxy, tmp_path) as watched,
    ):
        await watched.cli("init", "tiny", "there", "--target", "m3")
        await watched.cli("init", "tiny", "here", "--target", "m1")
        await watched.control.adoptions.adopt(ADMIN, watched.cluster_id, ["here", "there"])
        adopted = {"here": ("stopped", "adopted"), "there": ("stopped", "adopted")}
        await watched.until(lambda known: known == adopted, 5)
        await asyncio.to_thread(cluster.members["m3"].kill)
        assert "m3 is offline" in await watched.status("degraded", 40)
        # whatever is read now, the mark of what is on m3 cannot be
        scan = await watched.control.adoptions.scan(ADMIN, watched.cluster_id)
        assert scan.counts["adopted"] == 2
        proxy.cut("/1.0/events")
        away = {**adopted, "there": ("error", "adopted")}
        await watched.until(lambda known: known == away, 40)
        await asyncio.to_thread(cluster.members["m3"].start)
        await watched.status("active", 40)
    # Sockets close in the loop's next turns, and one that is open keeps its peer's network alive.
    await asyncio.sleep(0.2)


def test_several_servers_write_the_same_at_once(postgres_url: str) -> None:
    """On one PostgreSQL: no deadlock, nothing lost, and nothing twice."""
    databases = [Database(postgres_url) for _ in range(4)]
    databases[0].migrate()
    bootstrap.prepare(databases[0])
    with databases[0].write() as session:
        clusters = [
            Cluster(
                tenant_id=1, name=f"c{number}", provider="fake", connection_method="unix-socket",
                endpoint_url="fake://x", created_by="admin",
            )
            for number in range(3)
        ]  # fmt: skip
        session.add_all(clusters)
        session.flush()
        keys = [cluster.id for cluster in clusters]
    servers = ServerInfo("incus", "6.0", "1.0", "h", False, frozenset(), frozenset({"container"}))

    def seen(*numbers: int) -> list[Instance]:
        return [Instance(f"i{number}", "container", "running", None, "x86_64") for number in numbers]

    def serve(place: int) -> None:
        for turn in range(25):
            for key in keys if place % 2 else reversed(keys):
                record_full(databases[place], key, seen(*range(turn % 5, 10)))
                record_some(databases[place], key, {"extra": seen(99)[0] if turn % 2 else None})
            order = keys if place % 2 else keys[::-1]
            words = "active" if turn % 3 else "error"
            record(
                databases[place], {key: Finding(Health(words, words), clock.now(), servers) for key in order}
            )

    with ThreadPoolExecutor(len(databases)) as threads:
        for served in [threads.submit(serve, place) for place in range(len(databases))]:
            served.result(timeout=120)
    for database in databases:
        for key in keys:
            record_full(database, key, seen(1, 2))
    with databases[0].read() as session:
        rows = session.execute(sa.select(KnownInstance.cluster_id, KnownInstance.name)).all()
    assert sorted(tuple(row) for row in rows) == sorted((key, f"i{n}") for key in keys for n in (1, 2))
    for database in databases:
        database.close()
