"""Builds on the whole control plane; only the builder's process is stood in for."""

from __future__ import annotations

import asyncio
import base64
import copy
import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from iceshelves.core.errors import Failed, InvalidInput, NotFound
from iceshelves.factory import recipes, worker
from iceshelves.factory.builds import AcceptedBuild, BuildRequest
from iceshelves.images.build.events import BuildResult, BuiltFile, BuiltImage, Said, StageBegan, StageEnded
from iceshelves.images.build.job import Job
from iceshelves.images.metadata import ImageMetadata, write_metadata
from iceshelves.images.registry import Publication, Published, Registry, Wanted, verify
from iceshelves.store.models import Build, Operation

from .conftest import ADMIN, Killed, Plane, Story

RECIPE = b"""\
name: probe
version: '1.2.3'
description: For a test.
base: {distribution: debian, release: bookworm}
health: {command: 'true', interval: 1s, start_period: 1s, retries: 1}
"""
#: a squashfs as far as a registry looks: it is named by its content
ROOTFS = b"hsqs" + bytes(8192)
EPOCH = 1_790_000_000


class Builder:
    """Stands in for :func:`iceshelves.images.build.launch.build`."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.failure: Exception | None = None
        self.hold: asyncio.Event | None = None
        self.rootfs = ROOTFS

    async def __call__(self, job: Job, on_event: Callable[[Any], None]) -> BuildResult:
        self.jobs.append(job)
        on_event(StageBegan("base"))
        on_event(Said("base", "unpacking"))
        if self.hold is not None:
            await self.hold.wait()
        if self.failure is not None:
            raise self.failure
        on_event(StageEnded("base", 0.1))
        output = Path(job.output)
        output.mkdir(parents=True)
        properties = {
            "os": "Debian", "release": "bookworm", "variant": "probe", "architecture": "amd64",
            "version": "1.2.3", "description": "For a test.", "serial": "20260921_1333",
        }  # fmt: skip
        described = ImageMetadata("x86_64", EPOCH, 0, properties)
        write_metadata(output / "metadata.tar.xz", described, {})
        (output / "rootfs.squashfs").write_bytes(self.rootfs)
        (output / "appliance.lock").write_text('{"packages": {}}')
        metadata, data, lock = (
            _built(output / n) for n in ("metadata.tar.xz", "rootfs.squashfs", "appliance.lock")
        )
        both = (output / "metadata.tar.xz").read_bytes() + self.rootfs
        image = BuiltImage("container", hashlib.sha256(both).hexdigest(), metadata, data)
        return BuildResult(
            "probe",
            "1.2.3",
            "amd64",
            "20260921_1333",
            EPOCH,
            "sha256:0",
            lock,
            (image,),
            10,
            1000,
            {"base": 0.1},
        )


def _built(path: Path) -> BuiltFile:
    content = path.read_bytes()
    return BuiltFile(path.name, hashlib.sha256(content).hexdigest(), len(content))


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> Builder:
    made = Builder()
    monkeypatch.setattr(worker, "build", made)
    return made


def ask(plane: Plane, **wishes: Any) -> AcceptedBuild:
    request = BuildRequest(files={"appliance.yaml": RECIPE}, **wishes)
    return plane.control.builds.create(ADMIN, request)


async def ended(plane: Plane, operation_id: str) -> Operation:
    """The operation once all is done that belongs to it: what it leaves goes after its end."""
    operation = await plane.ended(operation_id)
    await plane.engine.tasks[operation_id]
    return operation


def row(plane: Plane) -> Build:
    with plane.control.database.read() as session:
        return session.execute(sa.select(Build)).scalar_one()


def test_built_tried_out_and_published(plane: Plane, play: Callable[[Story], None], builder: Builder) -> None:
    async def story(plane: Plane) -> None:
        accepted = ask(plane, cluster_id=plane.cluster_id, channel="stable")
        operation = await ended(plane, accepted.operation_id)
        assert operation.status == "succeeded", operation.error
        assert plane.steps(operation.id) == {"build": "done", "boot": "done", "publish": "done"}
        [entry] = plane.control.published.find(ADMIN, Wanted())
        assert (entry.appliance, entry.version, entry.channels) == ("probe", "1.2.3", ("stable",))
        build = row(plane)
        assert build.status == "succeeded"
        assert build.lock == '{"packages": {}}'
        assert build.result["images"][0]["fingerprint"] == entry.fingerprints["container"]
        assert build.result["published"]["outcome"] == "published"
        assert "[base] unpacking" in plane.log()
        # nothing is left where it was built and tried out
        assert list((plane.data / "builds" / "work").iterdir()) == []
        assert plane.world.state.instances == {}
        assert entry.fingerprints["container"] not in plane.world.state.images
        assert verify(plane.control.registries.of(1)).clean
        # the same once more is not published again
        again = await plane.ended(ask_again(plane))
        assert again.status == "succeeded"
        assert len(plane.control.published.find(ADMIN, Wanted())) == 1

    def ask_again(plane: Plane) -> str:
        return ask(plane, channel="stable").operation_id

    play(story)


def test_the_gate_leaves_an_image_that_was_there(
    plane: Plane, play: Callable[[Story], None], builder: Builder
) -> None:
    async def story(plane: Plane) -> None:
        await ended(plane, ask(plane, channel="stable").operation_id)
        await plane.ended(plane.deploy(image="registry:probe"))
        await ended(plane, ask(plane, cluster_id=plane.cluster_id, channel="stable").operation_id)
        [entry] = plane.control.published.find(ADMIN, Wanted())
        assert entry.fingerprints["container"] in plane.world.state.images
        assert list(plane.world.state.instances) == ["web"]

    play(story)


def test_a_cluster_that_was_a_gate_can_be_forgotten(
    plane: Plane, play: Callable[[Story], None], builder: Builder
) -> None:
    async def story(plane: Plane) -> None:
        await ended(plane, ask(plane, cluster_id=plane.cluster_id).operation_id)
        plane.control.clusters.delete(ADMIN, plane.cluster_id)
        assert row(plane).cluster_id == plane.cluster_id

    play(story)


def test_what_is_not_healthy_is_not_published(
    plane: Plane, play: Callable[[Story], None], builder: Builder
) -> None:
    async def story(plane: Plane) -> None:
        sick = {"like": "/usr/lib/appliance/health", "status": 1, "stdout": "no port"}
        plane.world.rewrite({"guests": {"*": {"commands": [sick]}}})
        accepted = ask(plane, cluster_id=plane.cluster_id, channel="stable")
        operation = await plane.ended(accepted.operation_id)
        assert operation.status == "failed"
        assert operation.error is not None
        assert operation.error["code"] == "unhealthy"
        assert plane.steps(operation.id) == {"build": "done", "boot": "failed", "publish": "skipped"}
        assert plane.control.published.find(ADMIN, Wanted()) == []
        assert plane.world.state.instances == {}

    play(story)


def test_the_builders_failure_is_the_builds(
    plane: Plane, play: Callable[[Story], None], builder: Builder
) -> None:
    async def story(plane: Plane) -> None:
        builder.failure = Failed("There is no package nginy.", code="package_not_found")
        operation = await ended(plane, ask(plane, channel="stable").operation_id)
        assert operation.status == "failed"
        assert operation.error is not None
        assert operation.error["code"] == "package_not_found"
        assert row(plane).error == operation.error
        assert list((plane.data / "builds" / "work").iterdir()) == []

    play(story)


def test_a_build_is_cancelled(plane: Plane, play: Callable[[Story], None], builder: Builder) -> None:
    async def story(plane: Plane) -> None:
        builder.hold = asyncio.Event()
        accepted = ask(plane, channel="stable")
        await plane.reached(accepted.operation_id, "build")
        plane.control.cancel(ADMIN, accepted.operation_id)
        operation = await plane.ended(accepted.operation_id)
        assert operation.status == "cancelled"
        assert row(plane).status == "cancelled"
        assert plane.control.published.find(ADMIN, Wanted()) == []

    play(story)


def test_what_was_published_while_it_was_cancelled_is_told(
    plane: Plane, play: Callable[[Story], None], builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish, begun, may_go_on = Registry.publish, threading.Event(), threading.Event()

    def slowly(registry: Registry, publication: Publication) -> Published:
        begun.set()
        assert may_go_on.wait(10)
        return publish(registry, publication)

    monkeypatch.setattr(Registry, "publish", slowly)

    async def story(plane: Plane) -> None:
        accepted = ask(plane, channel="stable")
        await asyncio.to_thread(begun.wait, 10)
        plane.control.cancel(ADMIN, accepted.operation_id)
        await asyncio.sleep(0.05)
        may_go_on.set()
        operation = await ended(plane, accepted.operation_id)
        assert operation.status == "succeeded"
        assert row(plane).result["published"]["outcome"] == "published"

    play(story)


def test_a_gate_that_a_killed_server_left_is_cleared(
    plane: Plane, play: Callable[[Story], None], builder: Builder
) -> None:
    async def story(plane: Plane) -> None:
        plane.world.rewrite({"delays": {"start": 0.3}})
        accepted = ask(plane, cluster_id=plane.cluster_id)
        async with asyncio.timeout(10):
            while not plane.world.state.instances:
                await asyncio.sleep(0.002)
        left = copy.deepcopy(plane.world.state)
        plane.control.cancel(ADMIN, accepted.operation_id)
        plane.engine.tasks[accepted.operation_id].cancel()
        await asyncio.gather(plane.engine.tasks[accepted.operation_id], return_exceptions=True)
        plane.world.state = left  # as a killed server leaves it: nobody tidied up
        await plane.restart()
        operation = await ended(plane, accepted.operation_id)
        assert operation.status == "cancelled"
        assert plane.world.state.instances == {}

    play(story)


@pytest.mark.parametrize(
    "moment", ["before build", "after build", "before publish", "after publish", "after end"]
)
def test_a_killed_server_goes_on(
    plane: Plane, play: Callable[[Story], None], builder: Builder, moment: str
) -> None:
    async def story(plane: Plane) -> None:
        def kill(here: str) -> None:
            if here == moment:
                plane.hook = lambda _moment: None
                raise Killed

        plane.hook = kill
        accepted = ask(plane, channel="stable")
        async with asyncio.timeout(10):
            while plane.engine.tasks.get(accepted.operation_id) is None:
                await asyncio.sleep(0.002)
            await asyncio.wait([plane.engine.tasks[accepted.operation_id]])
        await plane.restart()
        operation = await plane.ended(accepted.operation_id)
        assert operation.status == "succeeded", operation.error
        assert len(plane.control.published.find(ADMIN, Wanted())) == 1
        assert verify(plane.control.registries.of(1)).clean

    play(story)


@pytest.mark.parametrize(
    ("wishes", "kind", "code"),
    [
        ({"appliance": "nonesuch", "files": None}, NotFound, "appliance_not_found"),
        ({"appliance": None, "files": None}, InvalidInput, "invalid_request"),
        ({"architecture": "s390x"}, InvalidInput, "architecture_not_in_recipe"),
        ({"types": ("virtual-machine",)}, InvalidInput, "type_not_in_recipe"),
        ({"channel": "Not A Channel"}, InvalidInput, "invalid_channel"),
        ({"cluster_id": 999}, NotFound, "cluster_not_found"),
    ],
)
def test_what_cannot_be_built(plane: Plane, wishes: dict[str, Any], kind: type[Exception], code: str) -> None:
    request = BuildRequest(**{"files": {"appliance.yaml": RECIPE}, **wishes})
    with pytest.raises(kind) as refused:
        plane.control.builds.create(ADMIN, request)
    assert refused.value.code == code  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../b", "", "files//x", ".", "x\0"])
def test_files_lie_below_their_folder(name: str) -> None:
    with pytest.raises(InvalidInput):
        recipes.decode_files({name: base64.b64encode(b"x").decode()})


def test_files_survive_the_database() -> None:
    files = {"appliance.yaml": RECIPE, "files/x": bytes(range(256))}
    assert recipes.unpack(recipes.pack(files)) == files


@pytest.mark.parametrize(
    ("image", "outcome"),
    [
        ("registry:probe", "succeeded"),
        ("registry:probe/1.2.3", "succeeded"),
        ("registry:probe/1.2.4", "image_not_found"),
        ("registry:probe@testing", "image_not_found"),
        ("registry:Pro be", "invalid_image"),
    ],
)
def test_a_deployment_takes_it_from_the_registry(
    plane: Plane, play: Callable[[Story], None], builder: Builder, image: str, outcome: str
) -> None:
    async def story(plane: Plane) -> None:
        await plane.ended(ask(plane, channel="stable").operation_id)
        operation = await plane.ended(plane.deploy(image=image))
        if outcome == "succeeded":
            assert operation.status == outcome, operation.error
            [entry] = plane.control.published.find(ADMIN, Wanted())
            assert plane.world.state.instances["web"].image == entry.fingerprints["container"]
        else:
            assert operation.error is not None
            assert operation.error["code"] == outcome

    play(story)
