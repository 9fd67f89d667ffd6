"""What a guest says is somebody else's: it can neither exhaust the server nor spoil what others keep."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from iceshelves.access.policy import Actor, Role
from iceshelves.core.errors import Denied, Temporary
from iceshelves.deploy import checks, plan, readiness, watch
from iceshelves.deploy.spec import DeploymentSpec
from iceshelves.deploy.watch import CloudInitStream, parse_result, parse_warnings

from .conftest import Plane, Story, make_egg

Play = Callable[[Story], None]


@pytest.mark.parametrize("text", ["[" * 100_000 + "]" * 100_000, '{"v1": ' * 5000 + "}" * 5000])
def test_json_that_is_made_to_exhaust_is_no_result(text: str) -> None:
    assert parse_result(text) is None
    assert parse_warnings(text.encode()) == []


def test_a_result_of_many_short_lines_is_read_in_little_time() -> None:
    stream = CloudInitStream()
    stream.feed(f"==> {watch.RESULT} <==\n".encode())
    started = time.monotonic()
    for _ in range(20):
        stream.feed(b"\n" * 50_000)
    assert time.monotonic() - started < 5
    assert len(stream._result_text) <= 256 * 1024


def test_errors_and_warnings_are_bounded_and_can_be_stored() -> None:
    errors = ["bad \ud800 and \x00 " + "x" * 100_000, *("again" for _ in range(1000))]
    result = parse_result(json.dumps({"v1": {"datasource": "x", "errors": errors}}))
    assert result is not None
    assert len(result.errors) == 50
    assert result.errors[0].startswith("bad ? and \ufffd x")
    assert len(result.errors[0]) == 2000
    recoverable = {"WARNING": [f"warning {number}" for number in range(1000)]}
    status = json.dumps({"v1": {"init": {"recoverable_errors": recoverable}}})
    assert len(parse_warnings(status.encode())) == 50


def test_strange_characters_do_not_break_an_operation_or_its_log(play: Play) -> None:
    async def story(plane: Plane) -> None:
        command = {"like": "probe", "status": 1, "stderr": "no \x00"}
        plane.world.rewrite({"guests": {"*": {"commands": [command], "errors": []}}})
        egg = make_egg(checks=[{"name": "answers", "command": ["probe"], "timeout": 0.2}])
        accepted = plane.deploy(egg=egg)
        operation = await plane.ended(accepted)
        assert operation.error is not None
        assert operation.error["code"] == "check_failed"
        json.dumps(operation.error, ensure_ascii=False).encode()

    play(story)


def test_a_line_that_cannot_be_kept_does_not_end_the_log_of_others(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(plane: Plane) -> None:
        logbook = plane.control._keeper.logbook
        write = logbook._write

        def spoilt(lines: list[Any], progress: Any) -> None:
            if any("bad" in line.message for line in lines):
                raise ValueError("cannot be kept")
            write(lines, progress)

        monkeypatch.setattr(logbook, "_write", spoilt)
        plane.world.rewrite({"guests": {"*": {"output": [{"text": "bad"}]}}})
        assert (await plane.ended(plane.deploy())).status == "succeeded"
        plane.world.rewrite({"guests": {"*": {"output": [{"text": "good"}]}}})
        await plane.ended(plane.deploy("other", egg_id=1))
        assert "good" in plane.log("guest")

    play(story)


def test_the_guests_output_is_kept_up_to_a_limit(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "_MAX_KEPT", 100)

    async def story(plane: Plane) -> None:
        lines = [{"text": f"line {number} of many"} for number in range(100)]
        plane.world.rewrite({"guests": {"*": {"output": lines}}})
        assert (await plane.ended(plane.deploy())).status == "succeeded"
        assert 3 < len(plane.log("guest")) < 10
        assert any("says too much" in line for line in plane.log("engine"))

    play(story)


def test_a_check_that_hangs_fails_in_its_time(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_GRACE", 0.1)

    async def story(plane: Plane) -> None:
        plane.world.rewrite({"guests": {"*": {"commands": [{"like": "probe", "delay": 60}]}}})
        egg = make_egg(checks=[{"name": "answers", "command": ["probe"], "timeout": 0.2}])
        async with asyncio.timeout(10):
            operation = await plane.ended(plane.deploy(egg=egg))
        assert operation.error is not None
        assert operation.error["code"] == "check_failed"
        assert "did not end within" in operation.error["message"]

    play(story)


@pytest.mark.parametrize(
    "device",
    [
        {"type": "disk", "source": "/", "path": "/host", "pool": ""},
        {"type": "disk", "source": "/etc", "path": "/"},
        {"type": "disk", "source": "/", "path": "//"},
        {"type": "unix-char", "path": "/dev/kvm"},
        {"type": "proxy", "listen": "tcp:0.0.0.0:22", "connect": "tcp:127.0.0.1:22"},
        {"type": "nic", "nictype": "physical", "parent": "eth0"},
        {"type": "not-known-yet"},
        {},
    ],
)
def test_devices_that_may_reach_the_host_need_an_administrator(device: dict[str, str]) -> None:
    spec = DeploymentSpec(instance="web", kind="container", egg="x@1", image="i", devices={"it": device})
    with pytest.raises(Denied, match="device it"):
        plan.check_host_access(Actor(1, 2, "op", Role.OPERATOR), spec)
    plan.check_host_access(Actor(1, 1, "admin", Role.ADMIN), spec)


@pytest.mark.parametrize(
    "device",
    [
        {"type": "disk", "pool": "default", "path": "/"},
        {"type": "disk", "pool": "default", "source": "data", "path": "/data"},
        {"type": "nic", "network": "incusbr0"},
        {"type": "none"},
    ],
)
def test_devices_that_stay_inside_are_for_everybody(device: dict[str, str]) -> None:
    spec = DeploymentSpec(instance="web", kind="container", egg="x@1", image="i", devices={"it": device})
    plan.check_host_access(Actor(1, 2, "op", Role.OPERATOR), spec)


def test_what_cloud_init_says_of_a_missing_package_is_telling() -> None:
    """As cloud-init 25.1 prints it, which does not let apt say it."""
    stamp = "2026-01-01 12:00:00,000 -"
    said = [
        "Reading package lists...",
        f"{stamp} log_util.py[WARNING]: Failure when attempting to install packages: ['nosuch']",
        f"{stamp} cc_package.py[WARNING]: 1 failed with exceptions, re-raising the last one",
        f"{stamp} log_util.py[WARNING]: Running module package-update-upgrade-install failed",
        "Cloud-init v. 25.1.4 finished",
    ]
    assert watch.telling_lines(said) == [said[1]]


def test_a_connection_lost_meanwhile_does_not_repeat_what_was_said(
    play: Callable[[Story], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    judge, cuts = readiness._verdict, []

    async def cut_once(*arguments: Any) -> Any:
        if not cuts:
            cuts.append(1)
            raise Temporary("The connection to the guest was lost.", code="guest_connection_lost")
        return await judge(*arguments)

    monkeypatch.setattr(readiness, "_verdict", cut_once)

    async def story(plane: Plane) -> None:
        assert (await plane.ended(plane.deploy())).status == "succeeded"
        said = plane.log("guest")
        assert cuts
        assert len(said) > 1
        assert sorted(set(said)) == sorted(said)

    play(story)
