"""A new revision of an instance in place: new image, configuration and mark, same addresses and volumes.

Incus rebuilds an instance itself (API extension ``instances_rebuild``); LXD 5.0 cannot, see ``replacement``.
An instance whose root file system is being replaced says so in its mark until that is done, so a rebuild
that was cut off is seen and continued.
"""

from __future__ import annotations

from typing import Any, Final

from iceshelves.core.errors import Conflict, NotFound
from iceshelves.providers.base import Instance, InstanceSpec, Progress, no_progress
from iceshelves.providers.incus import wire
from iceshelves.providers.incus.addresses import pinned, pins_for
from iceshelves.providers.incus.client import Call, Client, path
from iceshelves.providers.incus.lifecycle import IncusLifecycle
from iceshelves.providers.incus.operations import Operations
from iceshelves.providers.incus.replacement import Replacement
from iceshelves.providers.ownership import (
    has_snapshots,
    instance_not_found,
    not_ours,
    same_deployment,
    same_operation,
)

#: seconds that a guest gets to shut down before its root file system is replaced
_GRACE: Final = 30.0


class IncusReconfiguration:
    """The :class:`~iceshelves.providers.base.Reconfiguration` of Incus and LXD."""

    def __init__(self, client: Client, operations: Operations, lifecycle: IncusLifecycle) -> None:
        self._client = client
        self._operations = operations
        self._lifecycle = lifecycle
        self._replacement = Replacement(client, operations, lifecycle)

    async def validate(self, name: str) -> None:
        """Raises :class:`Conflict` ``has_snapshots``: neither daemon rebuilds an instance that has any."""
        try:
            snapshots = await self._client.get(path("instances", name, "snapshots"))
        except NotFound:
            if await self._lifecycle.find(name) is None:
                raise
            return  # its successor waits for the name, and has none
        if snapshots:
            raise has_snapshots(name)

    async def rebuild(self, spec: InstanceSpec, progress: Progress = no_progress) -> Instance:
        await self._operations.settle(spec.name)
        replaces = await self._lifecycle.replaces()
        if replaces:
            await self._replacement.recover(spec)
        found = await self._lifecycle.find_alone(spec.name)
        if found is None:
            raise instance_not_found(spec.name)
        if not same_deployment(spec.mark, found.mark):
            raise not_ours(f"instance {spec.name!r}")
        if found.settled and same_operation(spec.mark, found.mark):
            return found
        await self.validate(spec.name)
        await self._check_image(spec)
        if replaces:
            await self._replacement.replace(spec, progress)
        else:
            await self._rebuild(spec, progress)
        return await self._lifecycle.get(spec.name)

    async def _rebuild(self, spec: InstanceSpec, progress: Progress) -> None:
        raw = await self._client.get_object(path("instances", spec.name))
        # The addresses are read while it still runs.
        inherited = await self._lifecycle.inherited_devices(spec)
        own = wire.devices_of(spec, inherited)
        expanded = {**inherited, **own}
        devices = pinned(own, expanded, await pins_for(self._client, raw, expanded))
        await self._lifecycle.stop(spec.name, grace=_GRACE)
        # The image's templates are rendered with the configuration of that moment, so it comes first.
        await self._write(spec, devices)
        source = {"type": "image", "fingerprint": spec.image.fingerprint}
        call = Call("POST", path("instances", spec.name, "rebuild"), {"source": source})
        await self._operations.run(call, progress)
        built = {"config": {wire.STATE: wire.BUILT}}
        await self._client.call(Call("PATCH", path("instances", spec.name), built))

    async def _check_image(self, spec: InstanceSpec) -> None:
        """Look before the instance is stopped and its configuration written."""
        try:
            await self._client.get_object(path("images", spec.image.fingerprint))
        except NotFound as error:
            raise NotFound(f"There is no image {spec.image.reference!r}.", code="image_not_found") from error

    async def _write(self, spec: InstanceSpec, devices: wire.Devices) -> None:
        """Replace the configuration, keeping what is the daemon's; once more if it changed in between."""
        try:
            await self._put(spec, devices)
        except Conflict as error:
            if error.code != "changed_meanwhile":
                raise
            await self._put(spec, devices)

    async def _put(self, spec: InstanceSpec, devices: wire.Devices) -> None:
        where = path("instances", spec.name)
        answer = await self._client.call(Call("GET", where))
        raw = self._client.as_object(answer.metadata, where)
        await self._operations.run(Call("PUT", where, rewritten(raw, spec, devices), answer.etag))


def rewritten(raw: dict[str, Any], spec: InstanceSpec, devices: wire.Devices) -> dict[str, Any]:
    """The instance ``raw`` with ``spec``'s configuration, marked as being rebuilt."""
    return {
        "architecture": raw.get("architecture", ""),
        "description": raw.get("description", ""),
        "ephemeral": raw.get("ephemeral", False),
        "stateful": raw.get("stateful", False),
        "profiles": list(spec.profiles),
        "config": {**wire.kept_config(raw.get("config") or {}), **wire.config_of(spec, wire.REBUILDING)},
        "devices": devices,
    }
