"""Instances of a fake world come, run, change and go."""

from __future__ import annotations

from collections.abc import Mapping

from iceshelves.core.errors import InvalidInput, NotFound
from iceshelves.core.names import check_instance_name
from iceshelves.providers.base import Instance, InstanceSpec, Mark, Progress, no_progress
from iceshelves.providers.fake.placement import member_for, members_of
from iceshelves.providers.fake.world import FakeInstance, FakeWorld, as_instance
from iceshelves.providers.membership import check_takes_instances
from iceshelves.providers.ownership import (
    check_config,
    has_snapshots,
    instance_exists,
    not_ours,
    same_deployment,
    same_operation,
)

_PROFILES = frozenset({"default"})


class FakeLifecycle:
    """The :class:`~iceshelves.providers.base.Lifecycle` of the fake."""

    def __init__(self, world: FakeWorld) -> None:
        self._world = world

    async def validate(self, spec: InstanceSpec) -> None:
        async with self._world.call("validate", spec.name):
            check_instance_name(spec.name)
            _check(spec, self._world)

    async def find(self, name: str) -> Instance | None:
        async with self._world.call("find", name):
            found = self._world.state.instances.get(name)
            return as_instance(found) if found is not None else None

    async def create(self, spec: InstanceSpec, progress: Progress = no_progress) -> Instance:
        async with self._world.call("create", spec.name):
            await self._world.settle(spec.name)
            found = self._world.state.instances.get(spec.name)
            if found is None:
                found = self._add(spec)
                progress(0.0, "Unpacking image")
                await self._world.work("create", spec.name)
                progress(1.0, "Unpacking image")
                await self._world.tell("created", spec.name)
            elif not same_operation(spec.mark, found.mark):
                raise instance_exists(spec.name)
            return as_instance(found)

    async def start(self, name: str) -> None:
        async with self._world.call("start", name):
            await self._world.settle(name)
            instance = self._world.instance(name)
            if instance.power != "running":
                self._world.switch_on(instance)
                await self._world.work("start", name)
                await self._world.tell("started", name)

    async def stop(self, name: str, *, grace: float) -> None:
        async with self._world.call("stop", name):
            await self._world.settle(name)
            instance = self._world.instance(name)
            if instance.power != "stopped":
                if grace > 0 and not self._world.guest_script(instance).shuts_down:
                    self._world.be_busy(name, grace)
                    await self._world.settle(name)
                instance.power = "stopped"
                await self._world.work("stop", name)
                await self._world.tell("shutdown" if grace > 0 else "stopped", name)

    async def delete(self, name: str, mark: Mark) -> None:
        async with self._world.call("delete", name):
            await self._world.settle(name)
            found = self._world.state.instances.get(name)
            if found is None:
                return
            if not same_deployment(mark, found.mark):
                raise not_ours(f"instance {name!r}")
            del self._world.state.instances[name]
            await self._world.work("delete", name)
            await self._world.tell("deleted", name)

    def _add(self, spec: InstanceSpec) -> FakeInstance:
        _check_image(self._world, spec)
        address, mac = self._world.new_address()
        self._world.state.instances[spec.name] = added = FakeInstance(
            name=spec.name,
            kind=spec.kind,
            image=spec.image.fingerprint,
            mark=spec.mark,
            member=member_for(self._world, spec.member),
            config=dict(spec.config),
            devices=copied(spec.devices),
            address=address,
            mac=mac,
        )
        return added


class FakeReconfiguration:
    """The :class:`~iceshelves.providers.base.Reconfiguration` of the fake."""

    def __init__(self, world: FakeWorld) -> None:
        self._world = world

    async def validate(self, name: str) -> None:
        async with self._world.call("validate_rebuild", name):
            _check_snapshots(self._world.instance(name))

    async def rebuild(self, spec: InstanceSpec, progress: Progress = no_progress) -> Instance:
        async with self._world.call("rebuild", spec.name):
            await self._world.settle(spec.name)
            instance = self._world.instance(spec.name)
            if not same_deployment(spec.mark, instance.mark):
                raise not_ours(f"instance {spec.name!r}")
            if instance.settled and same_operation(spec.mark, instance.mark):
                return as_instance(instance)
            _check_snapshots(instance)
            _check_image(self._world, spec)
            _overwrite(instance, spec)
            progress(0.0, "Unpacking image")
            await self._world.work("rebuild", spec.name)
            instance.settled = True
            self._world.save()
            progress(1.0, "Unpacking image")
            await self._world.tell("rebuilt", spec.name)
            return as_instance(instance)


def copied(devices: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """``devices`` that may be changed."""
    return {name: dict(device) for name, device in devices.items()}


def _overwrite(instance: FakeInstance, spec: InstanceSpec) -> None:
    """Everything of ``spec``; the addresses stay, files and runs of the old root file system go."""
    instance.settled = False
    instance.power = "stopped"
    instance.mark = spec.mark
    instance.image = spec.image.fingerprint
    instance.config = dict(spec.config)
    instance.devices = copied(spec.devices)
    instance.files.clear()
    instance.runs.clear()


def _check_image(world: FakeWorld, spec: InstanceSpec) -> None:
    if spec.image.fingerprint not in world.state.images:
        raise NotFound(f"There is no image {spec.image.reference!r}.", code="image_not_found")


def _check_snapshots(instance: FakeInstance) -> None:
    if instance.snapshots:
        raise has_snapshots(instance.name)


def _check(spec: InstanceSpec, world: FakeWorld) -> None:
    check_config(spec.config)
    unknown = [name for name in spec.profiles if name not in _PROFILES]
    if unknown:
        raise InvalidInput(f"There is no profile {unknown[0]!r}.", code="profile_not_found")
    if spec.member is not None:
        check_takes_instances(spec.member, members_of(world))
