"""What every provider must do alike, whatever it drives."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contract.bed import Bed
from iceshelves.core.errors import Conflict, InvalidInput, NotFound, Unsupported
from iceshelves.images.files import ImageFiles, fingerprints
from iceshelves.images.metadata import ImageMetadata, write_metadata
from iceshelves.providers import base
from iceshelves.providers.base import ExecRequest, InventoryEvent, Volume, require
from iceshelves.providers.ownership import adoption
from testbed.images import tiny_files

pytestmark = pytest.mark.anyio

CAPABILITIES = (
    base.Lifecycle,
    base.Reconfiguration,
    base.Images,
    base.ImageStore,
    base.Volumes,
    base.Guest,
    base.Snapshots,
    base.Inventory,
    base.Placement,
)


async def run(bed: Bed, name: str, command: Sequence[str], given: bytes = b"") -> tuple[int, bytes, bytes]:
    """Exit status, standard output and standard error of ``command``."""
    streams = {"stdout": b"", "stderr": b""}
    async with await bed.guest.exec(name, ExecRequest(command)) as session:
        if given:
            await session.write(given)
            await session.write(b"")
        async for stream, data in session.output():
            streams[stream] += data
        return await session.wait(), streams["stdout"], streams["stderr"]


async def first_address(bed: Bed, name: str) -> str:
    async with asyncio.timeout(15):
        while not (found := await bed.guest.addresses(name)):
            await asyncio.sleep(0.1)
    return found[0]


# Who is there


async def test_probe_tells_who_answers(bed: Bed) -> None:
    info = await bed.provider.probe()
    assert info.family == bed.family
    assert info.name
    assert info.version
    assert "container" in info.kinds


async def test_all_capabilities_are_offered(bed: Bed) -> None:
    for capability in CAPABILITIES:
        require(bed.provider, capability)
    assert bed.provider.offers(dict) is None


async def test_members_has_this_server_online(bed: Bed) -> None:
    members = await require(bed.provider, base.Placement).members()
    assert [(member.online, member.evacuated) for member in members] == [(True, False)]


async def test_a_survey_tells_what_this_server_has(bed: Bed) -> None:
    placement = require(bed.provider, base.Placement)
    before = (await placement.survey())[0].capacity
    assert before is not None
    assert before.cpus > 0
    assert 0 < before.memory_used < before.memory
    await bed.created()
    after = (await placement.survey())[0].capacity
    assert after is not None
    assert before.instances is not None
    assert after.instances == before.instances + 1


async def test_a_single_server_cannot_be_evacuated(bed: Bed) -> None:
    placement = require(bed.provider, base.Placement)
    (member,) = await placement.members()
    for change in (placement.evacuate(member.name), placement.restore(member.name)):
        with pytest.raises(Unsupported) as caught:
            await change
        assert caught.value.code == "not_a_cluster"


async def test_a_single_server_may_be_named(bed: Bed) -> None:
    (member,) = await require(bed.provider, base.Placement).members()
    spec = replace(await bed.spec(), member=member.name)
    await bed.lifecycle.validate(spec)
    assert (await bed.lifecycle.create(spec)).member is None


# Create


async def test_create_leaves_it_stopped_marked_and_settled(bed: Bed) -> None:
    spec = await bed.spec()
    created = await bed.lifecycle.create(spec)
    assert created == await bed.get(spec.name)
    assert (created.power, created.mark, created.settled) == ("stopped", spec.mark, True)
    assert created.image == spec.image.fingerprint
    assert created.config == spec.config


async def test_create_again_returns_what_is(bed: Bed) -> None:
    spec = await bed.created()
    await bed.lifecycle.start(spec.name)
    assert (await bed.lifecycle.create(spec)).power == "running"


async def test_create_by_another_operation_conflicts(bed: Bed) -> None:
    spec = await bed.created()
    with pytest.raises(Conflict) as caught:
        await bed.lifecycle.create(replace(spec, mark=bed.mark(operation="op2")))
    assert caught.value.code == "instance_exists"


async def test_create_over_another_deployment_conflicts_and_changes_nothing(bed: Bed) -> None:
    spec = await bed.created()
    with pytest.raises(Conflict) as caught:
        await bed.lifecycle.create(replace(spec, mark=bed.mark(deployment="other"), config={}))
    assert caught.value.code == "instance_exists"
    assert (await bed.get(spec.name)).mark == spec.mark


async def test_create_from_an_image_that_is_not_there(bed: Bed) -> None:
    spec = await bed.spec()
    with pytest.raises(NotFound) as caught:
        await bed.lifecycle.create(replace(spec, image=replace(spec.image, fingerprint="0" * 64)))
    assert caught.value.code == "image_not_found"
    assert await bed.lifecycle.find(spec.name) is None


async def test_two_workers_create_the_same_once(bed: Bed) -> None:
    spec = await bed.spec()
    other = require(bed.another(), base.Lifecycle)
    first, second = await asyncio.gather(bed.lifecycle.create(spec), other.create(spec))
    assert first.name == second.name == spec.name
    assert len([i for i in await bed.inventory.instances() if i.name == spec.name]) == 1


@pytest.mark.parametrize("after", [0.0, 0.02, 0.1])
async def test_create_that_was_cut_off_is_continued(bed: Bed, after: float) -> None:
    spec = await bed.spec()
    task = asyncio.create_task(bed.lifecycle.create(spec))
    await asyncio.sleep(after)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    again = await require(bed.another(), base.Lifecycle).create(spec)
    assert (again.mark, again.power) == (spec.mark, "stopped")
    await bed.lifecycle.start(spec.name)
    assert (await bed.get(spec.name)).power == "running"


# Find, start, stop, delete


async def test_find_of_nothing_is_none(bed: Bed) -> None:
    assert await bed.lifecycle.find(f"{bed.prefix}-none") is None


async def test_start_twice(bed: Bed) -> None:
    spec = await bed.created()
    await bed.lifecycle.start(spec.name)
    await bed.lifecycle.start(spec.name)
    assert (await bed.get(spec.name)).power == "running"


@pytest.mark.parametrize("grace", [0.0, 10.0])
async def test_stop_twice(bed: Bed, grace: float) -> None:
    spec = await bed.running()
    await bed.lifecycle.stop(spec.name, grace=grace)
    await bed.lifecycle.stop(spec.name, grace=grace)
    assert (await bed.get(spec.name)).power == "stopped"


async def test_start_and_stop_of_nothing(bed: Bed) -> None:
    for action in (bed.lifecycle.start("ct-none"), bed.lifecycle.stop("ct-none", grace=0)):
        with pytest.raises(NotFound) as caught:
            await action
        assert caught.value.code == "instance_not_found"


async def test_delete_of_a_running_one_and_again(bed: Bed) -> None:
    spec = await bed.running()
    await bed.lifecycle.delete(spec.name, spec.mark)
    assert await bed.lifecycle.find(spec.name) is None
    await bed.lifecycle.delete(spec.name, spec.mark)


async def test_delete_by_a_later_operation_of_the_deployment(bed: Bed) -> None:
    spec = await bed.created()
    await bed.lifecycle.delete(spec.name, bed.mark(operation="op9"))
    assert await bed.lifecycle.find(spec.name) is None


@pytest.mark.parametrize("change", [{"deployment": "other"}, {"installation": "other"}])
async def test_delete_of_what_is_not_ours_is_refused(bed: Bed, change: dict[str, str]) -> None:
    spec = await bed.created()
    with pytest.raises(Conflict) as caught:
        await bed.lifecycle.delete(spec.name, replace(spec.mark, **change))
    assert caught.value.code == "not_ours"
    assert await bed.lifecycle.find(spec.name) is not None


# Validate


async def test_validate_accepts_a_good_one(bed: Bed) -> None:
    await bed.lifecycle.validate(await bed.spec())


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"name": "../etc"}, "invalid_instance_name"),
        ({"profiles": ("default", "nonesuch")}, "profile_not_found"),
        ({"config": {"volatile.eth0.hwaddr": "00:16:3e:00:00:01"}}, "reserved_key"),
        ({"config": {"user.iceshelves.deployment": "x"}}, "reserved_key"),
        ({"member": "nonesuch"}, "member_not_found"),
    ],
)
async def test_validate_refuses(bed: Bed, change: dict[str, Any], code: str) -> None:
    spec = replace(await bed.spec(), **change)
    with pytest.raises(InvalidInput) as caught:
        await bed.lifecycle.validate(spec)
    assert caught.value.code == code


# Images


async def test_an_image_is_found_by_alias_and_by_fingerprint(bed: Bed) -> None:
    by_alias = await bed.images.resolve("tiny", "container")
    assert len(by_alias.fingerprint) == 64
    assert by_alias.cached
    by_print = await bed.images.resolve(by_alias.fingerprint[:12], "container")
    assert by_print.fingerprint == by_alias.fingerprint


async def test_ensure_of_a_held_image_gives_it_back(bed: Bed) -> None:
    image = await bed.image()
    assert await bed.images.ensure(image) == image


@pytest.mark.parametrize("reference", ["nonesuch/1", "nowhere:debian/13", "f" * 64])
async def test_an_unknown_image_is_told_so(bed: Bed, reference: str) -> None:
    with pytest.raises(NotFound) as caught:
        await bed.images.ensure(await bed.images.resolve(reference, "container"))
    assert caught.value.code == "image_not_found"
    assert reference in caught.value.message


async def test_the_tiny_image_reads_our_user_data(bed: Bed) -> None:
    spec = await bed.created()
    assert await bed.images.supports_cloud_init(spec.name) is True


# Guest


async def test_an_image_is_brought_and_dropped(bed: Bed, tmp_path: Path) -> None:
    store = require(bed.provider, base.ImageStore)
    described = ImageMetadata("x86_64", 1_790_000_000, 0, {"description": bed.prefix})
    write_metadata(tmp_path / "metadata.tar.xz", described, {})
    files = ImageFiles(tmp_path / "metadata.tar.xz", rootfs=tiny_files()[1])
    brought = await store.bring(files, "container")
    try:
        assert (brought.fingerprint, brought.cached) == (fingerprints(files).container, False)
        # it is there, and stays as it is
        assert await store.bring(files, "container") == replace(brought, cached=True)
        found = await bed.images.resolve(brought.fingerprint, "container")
        assert (found.fingerprint, found.cached) == (brought.fingerprint, True)
        with pytest.raises(InvalidInput):
            await store.bring(files, "virtual-machine")
    finally:
        await store.drop(brought.fingerprint)
    await store.drop(brought.fingerprint)
    with pytest.raises(NotFound):
        await bed.images.resolve(brought.fingerprint, "container")


async def test_exec_keeps_the_streams_apart_and_tells_the_status(bed: Bed) -> None:
    spec = await bed.running()
    script = "echo out; echo err >&2; exit 3"
    assert await run(bed, spec.name, ["sh", "-c", script]) == (3, b"out\n", b"err\n")
    assert await run(bed, spec.name, ["false"]) == (1, b"", b"")


async def test_exec_takes_standard_input(bed: Bed) -> None:
    spec = await bed.running()
    data = bytes(range(256)) * 400
    assert await run(bed, spec.name, ["cat"], data) == (0, data, b"")


async def test_exec_passes_arguments_untouched(bed: Bed) -> None:
    spec = await bed.running()
    status, out, _ = await run(bed, spec.name, ["echo", "$HOME", "a  b", "'"])
    assert (status, out) == (0, b"$HOME a  b '\n")


async def test_a_program_on_a_terminal_ends_by_itself(bed: Bed) -> None:
    spec = await bed.running()
    out = b""
    async with asyncio.timeout(5):
        # LXD 5.0 at times loses what a program says on a terminal that ends at once
        request = ExecRequest(["sh", "-c", "echo hello; sleep 0.5"], terminal=(80, 24))
        async with await bed.guest.exec(spec.name, request) as session:
            async for stream, data in session.output():
                assert stream == "stdout"
                out += data
            assert await session.wait() == 0
    assert out.split() == [b"hello"]


@pytest.mark.parametrize(("number", "status"), [(15, 143), (9, 137)])
async def test_a_signal_ends_a_program(bed: Bed, number: int, status: int) -> None:
    spec = await bed.running()
    async with (
        asyncio.timeout(10),
        await bed.guest.exec(spec.name, ExecRequest(["sleep", "1000"])) as session,
    ):
        await session.signal(number)
        assert await session.wait() == status


async def test_leaving_a_session_ends_the_program_soon(bed: Bed) -> None:
    spec = await bed.running()
    async with asyncio.timeout(5):
        async with await bed.guest.exec(spec.name, ExecRequest(["sleep", "1000"])):
            pass
    if bed.family != "fake":
        _, out, _ = await run(bed, spec.name, ["ps"])
        assert b"sleep 1000" not in out


async def test_many_programs_at_once(bed: Bed) -> None:
    spec = await bed.running()
    ran = await asyncio.gather(*(run(bed, spec.name, ["echo", str(n)]) for n in range(20)))
    assert [out for _, out, _ in ran] == [b"%d\n" % n for n in range(20)]


async def test_exec_needs_a_running_instance(bed: Bed) -> None:
    spec = await bed.created()
    with pytest.raises(Conflict) as caught:
        await bed.guest.exec(spec.name, ExecRequest(["true"]))
    assert caught.value.code == "instance_not_running"


async def test_exec_in_nothing(bed: Bed) -> None:
    with pytest.raises(NotFound) as caught:
        await bed.guest.exec("ct-none", ExecRequest(["true"]))
    assert caught.value.code == "instance_not_found"


async def test_a_file_is_written_and_read_up_to_a_limit(bed: Bed) -> None:
    spec = await bed.running()
    data = bytes(range(256)) * 1000
    await bed.guest.write_file(spec.name, "/root/some file%2e", data, 0o600)
    assert await bed.guest.read_file(spec.name, "/root/some file%2e", 1_000_000) == data
    assert await bed.guest.read_file(spec.name, "/root/some file%2e", 1000) == data[:1000]


async def test_a_file_that_is_not_there(bed: Bed) -> None:
    spec = await bed.running()
    with pytest.raises(NotFound) as caught:
        await bed.guest.read_file(spec.name, "/nonesuch", 10)
    assert caught.value.code == "file_not_found"


async def test_a_running_guest_gets_an_address_and_a_stopped_one_has_none(bed: Bed) -> None:
    spec = await bed.created()
    assert list(await bed.guest.addresses(spec.name)) == []
    await bed.lifecycle.start(spec.name)
    assert (await first_address(bed, spec.name)).count(".") == 3


# Rebuild


async def test_rebuild_gives_the_new_revision_and_keeps_the_address(bed: Bed) -> None:
    spec = await bed.running()
    before = await first_address(bed, spec.name)
    await bed.guest.write_file(spec.name, "/root/old", b"old", 0o600)
    newer = replace(spec, mark=replace(spec.mark, operation="op2", revision=2), config={"user.x": "y"})
    rebuilt = await bed.reconfiguration.rebuild(newer)
    assert (rebuilt.power, rebuilt.settled, rebuilt.mark) == ("stopped", True, newer.mark)
    assert rebuilt.config == {"user.x": "y"}
    await bed.lifecycle.start(spec.name)
    assert await first_address(bed, spec.name) == before
    with pytest.raises(NotFound):
        await bed.guest.read_file(spec.name, "/root/old", 10)


async def test_rebuild_that_was_finished_does_nothing(bed: Bed) -> None:
    spec = await bed.running()
    assert (await bed.reconfiguration.rebuild(spec)).power == "running"


@pytest.mark.parametrize("after", [0.01, 0.1, 0.5])
async def test_rebuild_that_was_cut_off_is_continued(bed: Bed, after: float) -> None:
    spec = await bed.running()
    before = await first_address(bed, spec.name)
    newer = replace(spec, mark=replace(spec.mark, operation="op2", revision=2))
    task = asyncio.create_task(bed.reconfiguration.rebuild(newer))
    await asyncio.sleep(after)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    again = await require(bed.another(), base.Reconfiguration).rebuild(newer)
    assert (again.mark, again.settled) == (newer.mark, True)
    await bed.lifecycle.start(spec.name)
    assert await first_address(bed, spec.name) == before


async def test_rebuild_keeps_a_volume(bed: Bed) -> None:
    spec = await bed.spec()
    volume = Volume("data", "/srv/data", 64 * 1024 * 1024)
    device = await bed.volumes.ensure(spec.name, volume, spec.mark)
    spec = replace(spec, devices={"data": device})
    await bed.lifecycle.create(spec)
    await bed.lifecycle.start(spec.name)
    if bed.family != "fake":
        await bed.guest.write_file(spec.name, "/srv/data/kept", b"kept", 0o600)
    await bed.reconfiguration.rebuild(replace(spec, mark=replace(spec.mark, operation="op2")))
    await bed.lifecycle.start(spec.name)
    assert (await bed.get(spec.name)).devices["data"] == device
    if bed.family != "fake":
        assert await bed.guest.read_file(spec.name, "/srv/data/kept", 10) == b"kept"


async def test_rebuild_of_what_is_not_ours_is_refused(bed: Bed) -> None:
    spec = await bed.created()
    with pytest.raises(Conflict) as caught:
        await bed.reconfiguration.rebuild(replace(spec, mark=bed.mark(deployment="other")))
    assert caught.value.code == "not_ours"
    assert (await bed.get(spec.name)).mark == spec.mark


async def test_rebuild_of_nothing(bed: Bed) -> None:
    with pytest.raises(NotFound) as caught:
        await bed.reconfiguration.rebuild(await bed.spec("none"))
    assert caught.value.code == "instance_not_found"


async def test_rebuild_from_an_image_that_is_not_there_leaves_it_running(bed: Bed) -> None:
    spec = await bed.running()
    gone = replace(spec.image, fingerprint="0" * 64)
    with pytest.raises(NotFound) as caught:
        await bed.reconfiguration.rebuild(replace(spec, image=gone, mark=replace(spec.mark, operation="op2")))
    assert caught.value.code == "image_not_found"
    found = await bed.get(spec.name)
    assert (found.power, found.settled, found.mark) == ("running", True, spec.mark)


async def test_rebuild_with_snapshots_is_refused_before_anything_is_done(bed: Bed) -> None:
    spec = await bed.running()
    await bed.snapshots.create(spec.name, "s1")
    newer = replace(spec, mark=replace(spec.mark, operation="op2"))
    for refused in (bed.reconfiguration.validate(spec.name), bed.reconfiguration.rebuild(newer)):
        with pytest.raises(Conflict) as caught:
            await refused
        assert caught.value.code == "has_snapshots"
    assert await bed.get(spec.name) == replace(await bed.get(spec.name), power="running", mark=spec.mark)


# Volumes


async def test_a_volume_is_ensured_twice_and_deleted_twice(bed: Bed) -> None:
    mark = bed.mark()
    volume = Volume("data", "/srv/data", 1024 * 1024)
    first = await bed.volumes.ensure(f"{bed.prefix}-a", volume, mark)
    assert await bed.volumes.ensure(f"{bed.prefix}-a", volume, mark) == first
    assert first["path"] == "/srv/data"
    await bed.volumes.delete_all(mark)
    await bed.volumes.delete_all(mark)


async def test_a_volume_of_another_deployment_is_left_alone(bed: Bed) -> None:
    volume = Volume("data", "/srv/data", 1024 * 1024)
    first = await bed.volumes.ensure(f"{bed.prefix}-a", volume, bed.mark())
    other = bed.mark(deployment="other")
    await bed.volumes.delete_all(other)
    with pytest.raises(Conflict) as caught:
        await bed.volumes.ensure(f"{bed.prefix}-a", volume, other)
    assert caught.value.code == "not_ours"
    assert await bed.volumes.ensure(f"{bed.prefix}-a", volume, bed.mark()) == first


async def test_a_volume_in_use_is_not_deleted(bed: Bed) -> None:
    spec = await bed.spec()
    device = await bed.volumes.ensure(spec.name, Volume("data", "/srv/data", 1024 * 1024), spec.mark)
    await bed.lifecycle.create(replace(spec, devices={"data": device}))
    with pytest.raises(Conflict) as caught:
        await bed.volumes.delete_all(spec.mark)
    assert caught.value.code == "volume_in_use"


# Snapshots


async def test_snapshots_come_and_go(bed: Bed) -> None:
    spec = await bed.created()
    await bed.snapshots.create(spec.name, "s1")
    await bed.snapshots.create(spec.name, "s1")
    listed = await bed.snapshots.list(spec.name)
    assert [snapshot.name for snapshot in listed] == ["s1"]
    assert listed[0].created.startswith("2")
    await bed.snapshots.restore(spec.name, "s1")
    await bed.snapshots.delete(spec.name, "s1")
    await bed.snapshots.delete(spec.name, "s1")
    assert list(await bed.snapshots.list(spec.name)) == []


async def test_restore_of_a_snapshot_that_is_not_there(bed: Bed) -> None:
    spec = await bed.created()
    with pytest.raises(NotFound) as caught:
        await bed.snapshots.restore(spec.name, "none")
    assert caught.value.code == "snapshot_not_found"


# Inventory


async def test_inventory_lists_ours_with_their_marks(bed: Bed) -> None:
    specs = [await bed.created("a"), await bed.created("b")]
    found = {instance.name: instance.mark for instance in await bed.inventory.instances()}
    for spec in specs:
        assert found[spec.name] == spec.mark


async def test_one_instance_is_found_as_the_list_has_it(bed: Bed) -> None:
    spec = await bed.created()
    listed = {instance.name: instance for instance in await bed.inventory.instances()}
    assert await bed.inventory.instance(spec.name) == listed[spec.name]
    assert listed[spec.name].readable
    assert await bed.inventory.instance(f"{bed.prefix}-none") is None


async def test_what_a_deployment_made_is_neither_adopted_nor_released(bed: Bed) -> None:
    spec = await bed.created()
    for refused in (
        bed.inventory.adopt(spec.name, adoption(spec.mark.installation)),
        bed.inventory.release(spec.name, spec.mark.installation),
    ):
        with pytest.raises(Conflict) as caught:
            await refused
        assert caught.value.code == "not_ours"
    assert (await bed.get(spec.name)).mark == spec.mark


async def test_nothing_is_neither_adopted_nor_released(bed: Bed) -> None:
    name = f"{bed.prefix}-none"
    for refused in (bed.inventory.adopt(name, adoption("x")), bed.inventory.release(name, "x")):
        with pytest.raises(NotFound) as caught:
            await refused
        assert caught.value.code == "instance_not_found"


async def test_watch_tells_what_changes(bed: Bed) -> None:
    spec = await bed.created()
    told: asyncio.Queue[InventoryEvent] = asyncio.Queue()
    watching = asyncio.create_task(bed.inventory.watch(told.put))
    async with asyncio.timeout(5):
        assert (await told.get()).action == "resync"  # nothing is missed from here on
    await bed.lifecycle.start(spec.name)
    async with asyncio.timeout(5):
        while (event := await told.get()).name != spec.name or event.action != "instance-started":
            pass
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
