"""The fake: what its script promises, and that its world outlives whoever uses it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from iceshelves.connections.values import Scenario
from iceshelves.core.errors import Conflict, Denied, Failed, InvalidInput, NotFound, Temporary
from iceshelves.providers import base
from iceshelves.providers.base import ExecRequest, InstanceSpec, Mark, require
from iceshelves.providers.fake.provider import FakeProvider
from iceshelves.providers.fake.world import FakeWorld, forget_world, open_world

pytestmark = pytest.mark.anyio

MARK = Mark("unit", "dep", "op1", 1, "web@1.0.0")
OUTPUT, RESULT = "==> /var/log/cloud-init-output.log <==", "==> /run/cloud-init/result.json <=="


@pytest.fixture(autouse=True)
def fresh_world() -> Iterator[None]:
    forget_world("w")
    yield
    forget_world("w")


def provider(script: Mapping[str, Any] | None = None, file: Path | None = None) -> FakeProvider:
    return FakeProvider(open_world(Scenario("w", str(file) if file else None, script or {})))


async def spec_of(fake: FakeProvider, name: str = "web-1", reference: str = "debian/13") -> InstanceSpec:
    image = await require(fake, base.Images).resolve(reference, "container")
    return InstanceSpec(name, "container", image, MARK)


async def started(fake: FakeProvider, name: str = "web-1", reference: str = "debian/13") -> InstanceSpec:
    spec = await spec_of(fake, name, reference)
    await require(fake, base.Lifecycle).create(spec)
    await require(fake, base.Lifecycle).start(name)
    return spec


WATCH = ExecRequest(["sh", "-c", "tail …", "iceshelves-watch-cloud-init"])


async def watched(fake: FakeProvider, until: str) -> str:
    """What the watcher prints, up to ``until``."""
    text = ""
    async with asyncio.timeout(5):
        async with await require(fake, base.Guest).exec("web-1", WATCH) as session:
            async for _, data in session.output():
                text += data.decode()
                if until in text:
                    return text
    raise AssertionError(text)


async def test_cloud_init_is_watched_to_its_result() -> None:
    fake = provider()
    await started(fake)
    text = await watched(fake, "\n}\n")
    log, result = text.split(RESULT)
    assert log.startswith(OUTPUT + "\n")
    assert log.count("Cloud-init v.") == 2
    assert json.loads(result)["v1"]["errors"] == []


async def test_errors_are_those_of_the_script_and_in_both_files() -> None:
    fake = provider({"guests": {"web-*": {"result": "error", "errors": ["runcmd failed"]}}})
    await started(fake)
    assert "runcmd failed" in await watched(fake, "\n}\n")
    status = json.loads(
        await require(fake, base.Guest).read_file("web-1", "/var/lib/cloud/data/status.json", 9999)
    )
    assert status["v1"]["stage"] is None
    assert status["v1"]["modules-final"]["errors"] == ["runcmd failed"]


async def test_output_comes_over_time_and_goes_on_for_a_second_watcher() -> None:
    lines = [{"text": "early"}, {"text": "late", "at": 0.2}]
    fake = provider({"guests": {"*": {"output": lines, "duration": 0.3}}})
    await started(fake)
    early = await watched(fake, "early")
    assert "late" not in early
    assert "late" in await watched(fake, RESULT)


async def test_a_guest_that_never_finishes_has_no_result() -> None:
    fake = provider({"guests": {"*": {"result": "never"}}})
    await started(fake)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await watched(fake, RESULT)
    with pytest.raises(NotFound):
        await require(fake, base.Guest).read_file("web-1", "/run/cloud-init/result.json", 10)


@pytest.mark.parametrize(
    "script",
    [{"guests": {"*": {"result": "absent"}}}, {"images": {"debian/13": {"cloud_init": False}}}],
    ids=["guest", "image"],
)
async def test_without_cloud_init_the_watcher_ends_with_66(script: Mapping[str, Any]) -> None:
    fake = provider(script)
    await started(fake)
    assert not await require(fake, base.Images).supports_cloud_init("web-1")
    async with await require(fake, base.Guest).exec("web-1", WATCH) as session:
        assert await session.wait() == 66


async def test_guests_are_told_apart_by_name_and_by_egg() -> None:
    fake = provider({"guests": {"db-*": {"addresses": ["fd00::1"]}, "web@1.*": {"addresses": ["10.9.9.9"]}}})
    await started(fake, "db-1")
    await started(fake, "web-1")
    guest = require(fake, base.Guest)
    assert await guest.addresses("db-1") == ["fd00::1"]
    assert await guest.addresses("web-1") == ["10.9.9.9"]


async def test_a_check_fails_as_often_as_told() -> None:
    fake = provider({"guests": {"*": {"commands": [{"like": "curl *", "fail_first": 2, "stdout": "ok"}]}}})
    await started(fake)
    statuses = []
    for _ in range(3):
        request = ExecRequest(["curl", "-f", "http://localhost"])
        async with await require(fake, base.Guest).exec("web-1", request) as session:
            statuses.append(await session.wait())
    assert statuses == [1, 1, 0]


@pytest.mark.parametrize(
    ("kind", "error"),
    [("temporary", Temporary), ("failed", Failed), ("conflict", Conflict), ("denied", Denied)],
)
async def test_a_fault_meets_the_nth_call_only_and_before_anything_is_done(
    kind: str, error: type[Exception]
) -> None:
    fake = provider({"faults": [{"action": "create", "instance": "web-*", "nth": [2], "kind": kind}]})
    lifecycle = require(fake, base.Lifecycle)
    await lifecycle.create(await spec_of(fake, "web-1"))
    await lifecycle.create(await spec_of(fake, "db-1"))
    with pytest.raises(error):
        await lifecycle.create(await spec_of(fake, "web-2"))
    assert await lifecycle.find("web-2") is None
    await lifecycle.create(await spec_of(fake, "web-2"))


async def test_a_lost_answer_leaves_the_work_done() -> None:
    fake = provider({"faults": [{"action": "create", "nth": [1], "kind": "disconnect"}]})
    lifecycle = require(fake, base.Lifecycle)
    spec = await spec_of(fake)
    with pytest.raises(Temporary):
        await lifecycle.create(spec)
    assert (await lifecycle.create(spec)).mark == MARK


async def test_a_hanging_call_can_be_cancelled() -> None:
    fake = provider({"faults": [{"action": "start", "kind": "hang"}]})
    spec = await spec_of(fake)
    await require(fake, base.Lifecycle).create(spec)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await require(fake, base.Lifecycle).start(spec.name)
    assert fake.world.at_once["start"] == 0


async def test_work_goes_on_when_nobody_waits_and_is_waited_for_by_the_next() -> None:
    fake = provider({"delays": {"create": 0.2}})
    spec = await spec_of(fake)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await require(fake, base.Lifecycle).create(spec)
    before = asyncio.get_running_loop().time()
    await require(fake, base.Lifecycle).create(spec)
    assert 0.1 < asyncio.get_running_loop().time() - before < 0.3


async def test_a_cancelled_download_leaves_no_image() -> None:
    fake = provider({"images": {"alpine/3": {"cached": False}}, "delays": {"ensure_image": 0.2}})
    images = require(fake, base.Images)
    told: list[float | None] = []
    image = await images.resolve("alpine/3", "container")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await images.ensure(image, lambda fraction, _words: told.append(fraction))
    assert 0.0 in told
    assert not (await images.resolve("alpine/3", "container")).cached
    assert (await images.ensure(image)).cached


async def test_calls_at_once_are_counted() -> None:
    fake = provider({"delays": {"create": 0.02}})
    specs = [await spec_of(fake, f"web-{n}") for n in range(5)]
    await asyncio.gather(*(require(fake, base.Lifecycle).create(spec) for spec in specs))
    assert fake.world.most_at_once["create"] == 5
    assert fake.world.at_once["create"] == 0


async def test_a_world_is_found_again_in_the_same_process() -> None:
    await started(provider())
    assert await require(provider(), base.Lifecycle).find("web-1") is not None


async def test_a_world_with_a_file_is_found_again_by_a_new_process(tmp_path: Path) -> None:
    file = tmp_path / "world.json"
    script = {"faults": [{"action": "stop", "nth": [1]}]}
    fake = provider(script, file)
    spec = await started(fake)
    await require(fake, base.Guest).write_file("web-1", "/etc/x", bytes(range(256)), 0o600)
    await require(fake, base.Snapshots).create("web-1", "s1")
    await require(fake, base.Volumes).ensure("web-1", base.Volume("data", "/srv", 10), MARK)
    with pytest.raises(Temporary):
        await require(fake, base.Lifecycle).stop("web-1", grace=0)
    addresses = await require(fake, base.Guest).addresses("web-1")
    forget_world("w")

    again = provider(script, file)
    found = await require(again, base.Lifecycle).find("web-1")
    assert found is not None
    assert (found.mark, found.power, found.image) == (MARK, "running", spec.image.fingerprint)
    assert await require(again, base.Guest).addresses("web-1") == addresses
    assert await require(again, base.Guest).read_file("web-1", "/etc/x", 999) == bytes(range(256))
    assert [s.name for s in await require(again, base.Snapshots).list("web-1")] == ["s1"]
    # The fault was met before the restart, so it is not met again.
    await require(again, base.Lifecycle).stop("web-1", grace=0)
    assert [path.name for path in tmp_path.iterdir()] == ["world.json"]


async def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    file = tmp_path / "world.json"
    file.write_text('{"instances": 3}')
    with pytest.raises(Failed) as caught:
        provider(file=file)
    assert caught.value.code == "bad_world_file"


@pytest.mark.parametrize(
    ("script", "where"),
    [
        ({"delay": {}}, "delay"),
        ({"faults": [{"action": "create", "kind": "explode"}]}, "faults.0.kind"),
        ({"guests": {"*": {"result": "maybe"}}}, "guests.*.result"),
    ],
)
def test_a_wrong_script_is_told_with_its_place(script: Mapping[str, Any], where: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        provider(script)
    assert where in caught.value.message


async def test_an_offline_member_is_refused() -> None:
    fake = provider({"members": {"m1": {}, "m2": {"online": False, "message": "no heartbeat"}}})
    members = await require(fake, base.Placement).members()
    assert [(member.name, member.online) for member in members] == [("m1", True), ("m2", False)]
    with pytest.raises(Conflict) as caught:
        await require(fake, base.Lifecycle).validate(replace(await spec_of(fake), member="m2"))
    assert caught.value.code == "member_offline"


async def test_a_guest_that_does_not_shut_down_is_switched_off_after_its_grace() -> None:
    fake = provider({"guests": {"*": {"shuts_down": False}}})
    await started(fake)
    before = asyncio.get_running_loop().time()
    await require(fake, base.Lifecycle).stop("web-1", grace=0.1)
    assert asyncio.get_running_loop().time() - before >= 0.09
    found = await require(fake, base.Lifecycle).find("web-1")
    assert found is not None
    assert found.power == "stopped"


async def test_a_world_whose_file_cannot_be_written_says_so(tmp_path: Path) -> None:
    world = FakeWorld("unwritable", file=tmp_path / "nowhere" / "world.json")
    with pytest.raises(Failed) as caught:
        world.save()
    assert caught.value.code == "bad_world_file"
