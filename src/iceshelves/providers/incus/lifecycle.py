"""Instances come, run and go."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from iceshelves.core.errors import Conflict, Failed, InvalidInput, NotFound, Temporary, Unsupported
from iceshelves.core.names import check_instance_name
from iceshelves.providers.base import Instance, InstanceSpec, Mark, Progress, no_progress
from iceshelves.providers.incus import wire
from iceshelves.providers.incus.client import Call, Client, path
from iceshelves.providers.incus.operations import Operations
from iceshelves.providers.incus.placement import IncusPlacement
from iceshelves.providers.incus.server import Server
from iceshelves.providers.membership import check_takes_instances
from iceshelves.providers.ownership import (
    check_config,
    instance_exists,
    instance_not_found,
    not_ours,
    same_deployment,
    same_operation,
)


class IncusLifecycle:
    """The :class:`~iceshelves.providers.base.Lifecycle` of Incus and LXD."""

    def __init__(self, client: Client, operations: Operations, server: Server) -> None:
        self._client = client
        self._operations = operations
        self._server = server

    async def validate(self, spec: InstanceSpec) -> None:
        check_instance_name(spec.name)
        check_config(spec.config)
        info = await self._server.info()
        if spec.kind not in info.kinds:
            raise Unsupported(
                f"{info.name} cannot run a {spec.kind}.",
                code="kind_unsupported",
                hint="Virtual machines need QEMU and /dev/kvm on the host.",
            )
        if "cloud_init" not in info.features and any(key.startswith("cloud-init.") for key in spec.config):
            raise Unsupported(
                f"{info.name} runs {info.family} {info.version}, which has no cloud-init settings.",
                code="cloud_init_unsupported",
                hint="LXD 5.0 and later have them, and every Incus.",
            )
        await self._check_member(spec)
        inherited = await self.inherited_devices(spec)
        expanded = {**inherited, **wire.devices_of(spec, inherited)}
        if wire.root_device(expanded) is None:
            raise wire.no_root_disk(spec)
        await self._check_devices(expanded)

    async def find(self, name: str) -> Instance | None:
        found = await self.find_alone(name)
        if found is None and await self.replaces():
            # A replacement that was cut off between deleting and renaming: the instance is there, unfinished.
            # Where the renaming was just going on, the second look finds it.
            found = await self._find_successor(name) or await self.find_alone(name)
        return found

    async def find_alone(self, name: str) -> Instance | None:
        """The instance that has this name now."""
        raw = await self._read(name)
        return None if raw is None else wire.instance_from_wire(raw)

    async def replaces(self) -> bool:
        """Whether a rebuild is a replacement here, see ``replacement``."""
        return "instances_rebuild" not in (await self._server.info()).features

    async def _find_successor(self, name: str) -> Instance | None:
        raw = await self._read(wire.successor_of(name))
        if raw is None or (raw.get("config") or {}).get(wire.REPLACES) != name:
            return None
        return replace(wire.instance_from_wire(raw), name=name)

    async def _read(self, name: str) -> dict[str, Any] | None:
        try:
            return await self._client.get_object(path("instances", name))
        except NotFound:
            return None

    async def create(self, spec: InstanceSpec, progress: Progress = no_progress) -> Instance:
        # Only for an instance that is there is it worth asking what is still done with it: in a cluster that
        # question goes to every member, also to one that has just died.
        if await self._read(spec.name) is not None:
            await self._operations.settle(spec.name)
            found = await self._finished(spec)
            if found is not None:
                return found
        call = Call("POST", path("instances"), await self._new_instance(spec), query=await self._target(spec))
        try:
            await self._operations.run(call, progress)
        except (Conflict, Temporary) as error:
            if error.code not in ("already_exists", "hypervisor_busy"):
                raise
            # Somebody was faster with this name; perhaps it was us, in another process.
            await self._operations.settle(spec.name)
            found = await self._finished(spec)
            if found is None:
                raise
            return found
        return await self.get(spec.name)

    async def start(self, name: str) -> None:
        power = (await self.get(name)).power
        if power != "running":
            await self._change_state(name, "unfreeze" if power == "frozen" else "start", wanted="running")

    async def stop(self, name: str, *, grace: float) -> None:
        await self._operations.settle(name)
        if (await self.get(name)).power == "stopped":
            return
        if grace > 0:
            try:
                await self._change_state(name, "stop", wanted="stopped", timeout=max(1, math.ceil(grace)))
            except Failed:
                # It did not shut down in time, in whatever words; now the switch.
                await self._change_state(name, "stop", wanted="stopped", force=True)
        else:
            await self._change_state(name, "stop", wanted="stopped", force=True)

    async def delete(self, name: str, mark: Mark) -> None:
        if await self.replaces():
            # A replacement that was cut off leaves a successor.
            await self._operations.settle(wire.successor_of(name))
            if await self._find_successor(name) is not None:
                await self.delete_alone(wire.successor_of(name), mark)
        await self.delete_alone(name, mark)

    async def delete_alone(self, name: str, mark: Mark) -> None:
        """:meth:`delete`, but of this one only."""
        await self._operations.settle(name)
        found = await self.find_alone(name)
        if found is None:
            return
        if not same_deployment(mark, found.mark):
            raise not_ours(f"instance {name!r}")
        try:
            if found.power != "stopped":
                await self._change_state(name, "stop", wanted="stopped", force=True)
            await self._operations.run(Call("DELETE", path("instances", name)))
        except NotFound:
            return

    async def get(self, name: str) -> Instance:
        """The instance that has this name; :class:`NotFound` ``instance_not_found`` if there is none."""
        found = await self.find_alone(name)
        if found is None:
            raise instance_not_found(name)
        return found

    async def _finished(self, spec: InstanceSpec) -> Instance | None:
        """The instance, if this operation has made it.  What a crash of its host left of one is removed."""
        raw = await self._read(spec.name)
        if raw is None:
            return None
        found = wire.instance_from_wire(raw)
        if not same_operation(spec.mark, found.mark):
            raise instance_exists(spec.name)
        if wire.is_whole(raw):
            return found
        await self.delete_alone(spec.name, spec.mark)
        return None

    async def _new_instance(self, spec: InstanceSpec) -> dict[str, Any]:
        inherited = await self.inherited_devices(spec) if spec.root_size is not None else {}
        return {
            "name": spec.name,
            "type": spec.kind,
            "source": {"type": "image", "fingerprint": spec.image.fingerprint},
            "profiles": list(spec.profiles),
            "config": wire.config_of(spec, wire.BUILT),
            "devices": wire.devices_of(spec, inherited),
        }

    async def _target(self, spec: InstanceSpec) -> dict[str, str]:
        """A single server takes no target, not even its own name."""
        if spec.member is None or not (await self._server.info()).clustered:
            return {}
        return {"target": spec.member}

    async def inherited_devices(self, spec: InstanceSpec) -> dict[str, Mapping[str, str]]:
        """The devices that ``spec``'s profiles give it; :class:`InvalidInput` ``profile_not_found``."""
        devices: dict[str, Mapping[str, str]] = {}
        for name in spec.profiles:
            try:
                profile = await self._client.get_object(path("profiles", name))
            except NotFound as error:
                raise InvalidInput(
                    f"There is no profile {name!r}.",
                    code="profile_not_found",
                    hint="incus profile list (lxc on LXD) shows those there are.",
                ) from error
            devices.update(profile.get("devices") or {})
        return devices

    async def _check_member(self, spec: InstanceSpec) -> None:
        if spec.member is None:
            return
        members = await IncusPlacement(self._client, self._operations, self._server).members()
        check_takes_instances(spec.member, members)

    async def _check_devices(self, devices: Mapping[str, Mapping[str, str]]) -> None:
        for name, device in devices.items():
            for kind, option in (("networks", "network"), ("storage-pools", "pool")):
                wanted = device.get(option)
                if not wanted:
                    continue
                try:
                    await self._client.get_object(path(kind, wanted))
                except NotFound as error:
                    raise InvalidInput(
                        f"The device {name!r} names {option} {wanted!r}, which is not there.",
                        code=f"{option}_not_found",
                        hint="incus network list and incus storage list (lxc on LXD) show those there are.",
                    ) from error

    async def _change_state(
        self, name: str, action: str, *, wanted: str, timeout: int = -1, force: bool = False
    ) -> None:
        body = {"action": action, "timeout": timeout, "force": force}
        try:
            await self._operations.run(Call("PUT", path("instances", name, "state"), body))
        except Failed:
            # "already running", "already stopped": it is as wanted, however the daemon words that.
            if (await self.get(name)).power != wanted:
                raise
