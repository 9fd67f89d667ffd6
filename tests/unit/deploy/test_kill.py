"""The process is killed at every moment that matters; another one goes on; the end is always the same."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from iceshelves.clusters import providers
from iceshelves.deploy import records
from iceshelves.deploy.requests import UpdateRequest
from iceshelves.providers.fake.world import forget_world
from iceshelves.providers.registry import open_provider
from iceshelves.store.models import Operation

from .conftest import ADMIN, Killed, Plane, make_egg

EGG = make_egg(
    volumes=[{"name": "data", "path": "/data", "size": "1GiB"}],
    checks=[{"name": "answers", "command": ["probe"], "timeout": 5}],
)
SCRIPT = {"images": {"debian/13": {"cached": False}}}


class Axe:
    """Counts the moments at which the process could die, and kills it at the chosen one."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.at: int | None = None

    def moment(self, name: str) -> None:
        self.seen.append(name)
        if self.at is not None and len(self.seen) - 1 == self.at:
            raise Killed(name)


class _Tapped:
    """A provider whose every call is a moment, once it has had its effect."""

    def __init__(self, inner: Any, axe: Axe) -> None:
        self._inner = inner
        self._axe = axe

    @property
    def family(self) -> str:
        return str(self._inner.family)

    def offers(self, capability: type[Any]) -> Any:
        found = self._inner.offers(capability)
        return None if found is None else _Tapped(found, self._axe)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if name == "close" or not asyncio.iscoroutinefunction(method):
            return method

        async def tapped(*arguments: Any, **named: Any) -> Any:
            result = await method(*arguments, **named)
            self._axe.moment(f"after {name}()")
            return result

        return tapped


async def _until_ended(plane: Plane, axe: Axe, operation_id: str) -> None:
    """Wait for the end, starting a new process whenever the old one was killed."""
    while True:
        try:
            await plane.ended(operation_id)
        except Killed:
            axe.at = None
            await plane.restart()
        else:
            return


async def _deploy(plane: Plane, axe: Axe) -> None:
    plane.world.rewrite(SCRIPT)
    accepted = plane.deploy(egg=EGG)
    await _until_ended(plane, axe, accepted.operation_id)


async def _update(plane: Plane, axe: Axe) -> None:
    egg_id = plane.add_egg(make_egg(version="2.0.0", volumes=EGG.metadata.raw["volumes"]))
    accepted = plane.control.deployments.update(ADMIN, 1, UpdateRequest(egg_id=egg_id))
    await _until_ended(plane, axe, accepted.operation_id)


async def _delete(plane: Plane, axe: Axe) -> None:
    accepted = plane.control.deployments.delete(ADMIN, 1)
    await _until_ended(plane, axe, accepted.operation_id)


async def _fail_and_clean_up(plane: Plane, axe: Axe) -> None:
    plane.world.rewrite({"guests": {"*": {"result": "error", "errors": ["boom"]}}})
    accepted = plane.deploy(egg=EGG, on_failure="cleanup")
    await _until_ended(plane, axe, accepted.operation_id)


async def _cancel_at_the_end(plane: Plane, axe: Axe) -> None:
    asked: list[str] = []

    def moment(name: str) -> None:
        if name == "before end" and not asked:
            asked.append(accepted.operation_id)
            plane.control.cancel(ADMIN, accepted.operation_id)
        axe.moment(name)

    plane.hook = moment
    accepted = plane.deploy(egg=EGG)
    await _until_ended(plane, axe, accepted.operation_id)


async def _go_back(plane: Plane, axe: Axe) -> None:
    plane.world.rewrite({**SCRIPT, "guests": {"plain@2.*": {"result": "error", "errors": ["boom"]}}})
    egg_id = plane.add_egg(make_egg(version="2.0.0", volumes=EGG.metadata.raw["volumes"]))
    request = UpdateRequest(egg_id=egg_id, on_failure="cleanup")
    failed = plane.control.deployments.update(ADMIN, 1, request).operation_id
    for operation_id in (failed, records.follow_up_id(failed)):
        await _until_done(plane, axe, operation_id)
    with plane.control.database.read() as session:
        assert session.execute(sa.select(sa.func.count()).select_from(Operation)).scalar_one() == 3


async def _until_done(plane: Plane, axe: Axe, operation_id: str) -> None:
    """Wait for the end of the workflow: it may have something to do after the end of the operation."""
    while True:
        async with asyncio.timeout(15):
            while operation_id not in plane.engine.tasks:
                await asyncio.sleep(0.002)
        try:
            await plane.engine.tasks[operation_id]
        except Killed:
            axe.at = None
            await plane.restart()
        else:
            return


Story = Callable[[Plane, Axe], Awaitable[None]]
#: each with the moment at which it begins to differ from the story before it, and how many follow at most:
#: once the roll-back has begun, it is an update like any other
FROM_NOTHING: dict[str, tuple[Story, str, int]] = {
    "deploy": (_deploy, "before begin", 1000),
    "fail": (_fail_and_clean_up, "before cloud-init", 1000),
    "cancel": (_cancel_at_the_end, "before end", 1000),
}
FROM_A_DEPLOYMENT: dict[str, tuple[Story, str, int]] = {
    "update": (_update, "before begin", 1000),
    "delete": (_delete, "before begin", 1000),
    "go back": (_go_back, "before cloud-init", 20),
}


def _outcome(plane: Plane) -> dict[str, Any]:
    """The end state, without what differs from run to run."""
    deployment = plane.deployment()
    instances = plane.world.state.instances
    return {
        "deployment": (deployment.status, deployment.living, deployment.revision),
        "error": deployment.error["message"] if deployment.error else None,
        "instances": {
            name: (made.power, made.settled, made.mark.egg if made.mark else None, made.config)
            for name, made in instances.items()
        },
        "volumes": sorted(plane.world.state.volumes),
        "guest log": plane.log("guest"),
        "addresses": deployment.instance_info.get("ipv4"),
    }


def _run(plane: Plane, patch: pytest.MonkeyPatch, story: Story, kill_at: int | None) -> Axe:
    axe = Axe()
    axe.at = kill_at
    patch.setattr(
        providers, "open_provider", lambda family, connection: _Tapped(open_provider(family, connection), axe)
    )
    plane.hook = axe.moment

    async def whole() -> None:
        await plane.control.start()
        try:
            await story(plane, axe)
        finally:
            await plane.control.stop()

    asyncio.run(whole())
    return axe


def _check_every_moment(
    tmp_path: Path, origin: Path | Plane, patch: pytest.MonkeyPatch, story: Story, since: str, most: int
) -> None:
    world = copy.deepcopy(origin.world.state) if isinstance(origin, Plane) else None

    def run(name: str, kill_at: int | None) -> tuple[dict[str, Any], Axe]:
        plane = Plane(tmp_path / name, origin)
        if world is not None:
            plane.world.state = copy.deepcopy(world)
            plane.world.rewrite({})
        axe = _run(plane, patch, story, kill_at)
        outcome = _outcome(plane)
        if world is None:
            forget_world(plane.world_name)
        return outcome, axe

    expected, axe = run("whole", None)
    moments = list(axe.seen)
    first = moments.index(since)
    assert len(moments) - first > 5
    for number, moment in list(enumerate(moments))[first : first + most]:
        outcome, _ = run(f"killed-{number}", number)
        assert outcome == expected, f"killed {moment} (moment {number} of {len(moments)})"


@pytest.mark.parametrize("story", FROM_NOTHING)
def test_killed_at_every_moment(
    tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch, story: str
) -> None:
    _check_every_moment(tmp_path, template, monkeypatch, *FROM_NOTHING[story])


@pytest.mark.parametrize("story", FROM_A_DEPLOYMENT)
@pytest.mark.slow
def test_a_deployments_change_killed_at_every_moment(
    tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch, story: str
) -> None:
    deployed = Plane(tmp_path / "deployed", template)
    _run(deployed, monkeypatch, _deploy, None)
    try:
        _check_every_moment(tmp_path, deployed, monkeypatch, *FROM_A_DEPLOYMENT[story])
    finally:
        forget_world(deployed.world_name)
