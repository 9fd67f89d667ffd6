"""Rebuilding where the daemon cannot (LXD 5.0): a successor takes the instance's place.

The successor is made, stopped, under a name of its own, with the MAC addresses of the old one and the
addresses to pin in its configuration; then the old one is deleted and the successor takes its name.  At
every moment one of the two holds all that is to be kept, so a replacement that was cut off is continued:
with both there from the deletion on, with the successor alone from the renaming on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from iceshelves.providers.base import InstanceSpec, Progress
from iceshelves.providers.incus import wire
from iceshelves.providers.incus.addresses import pinned, pins_for
from iceshelves.providers.incus.client import Call, Client, path
from iceshelves.providers.incus.lifecycle import IncusLifecycle
from iceshelves.providers.incus.operations import Operations
from iceshelves.providers.ownership import instance_exists, same_deployment, same_operation

_PINS: Final = "user.iceshelves.pins"
_GRACE: Final = 30.0


class Replacement:
    """Replaces instances."""

    def __init__(self, client: Client, operations: Operations, lifecycle: IncusLifecycle) -> None:
        self._client = client
        self._operations = operations
        self._lifecycle = lifecycle

    async def recover(self, spec: InstanceSpec) -> None:
        """Finish or undo what an earlier replacement of ``spec.name`` left behind."""
        successor = wire.successor_of(spec.name)
        await self._operations.settle(successor)
        waiting = await self._lifecycle.find_alone(successor)
        if waiting is not None and not same_deployment(spec.mark, waiting.mark):
            raise instance_exists(successor)
        present = await self._lifecycle.find_alone(spec.name)
        if present is None and waiting is not None:
            await self._rename(successor, spec.name)
            present = await self._lifecycle.get(spec.name)
        elif waiting is not None and not same_operation(spec.mark, waiting.mark):
            await self._lifecycle.delete_alone(successor, spec.mark)
        if present is not None and not present.settled and same_deployment(spec.mark, present.mark):
            await self._finish(spec.name)

    async def replace(self, spec: InstanceSpec, progress: Progress) -> None:
        """Put an instance as ``spec`` says in the place of the one that is there."""
        successor = wire.successor_of(spec.name)
        raw = await self._client.get_object(path("instances", spec.name))
        if await self._lifecycle.find_alone(successor) is None:
            body = await self._successor(spec, raw)
            query = {"target": str(raw["location"])} if raw.get("location") not in (None, "", "none") else {}
            await self._operations.run(Call("POST", path("instances"), body, query=query), progress)
        await self._lifecycle.stop(spec.name, grace=_GRACE)
        await self._lifecycle.delete_alone(spec.name, spec.mark)
        await self._rename(successor, spec.name)
        await self._finish(spec.name)

    async def _successor(self, spec: InstanceSpec, raw: Mapping[str, Any]) -> dict[str, Any]:
        inherited = await self._lifecycle.inherited_devices(spec)
        own = wire.devices_of(spec, inherited)
        pins = await pins_for(self._client, raw, {**inherited, **own})
        config: Mapping[str, str] = raw.get("config") or {}
        stays = {key: value for key, value in config.items() if _stays(key)}
        return {
            "name": wire.successor_of(spec.name),
            "type": spec.kind,
            "source": {"type": "image", "fingerprint": spec.image.fingerprint},
            "profiles": list(spec.profiles),
            "config": {
                **stays,
                **wire.config_of(spec, wire.REBUILDING),
                wire.REPLACES: spec.name,
                _PINS: json.dumps(pins),
            },
            # Two instances may not name the same address, so it is pinned once the old one is gone.
            "devices": own,
        }

    async def _rename(self, successor: str, name: str) -> None:
        await self._operations.run(Call("POST", path("instances", successor), {"name": name}))

    async def _finish(self, name: str) -> None:
        raw = await self._client.get_object(path("instances", name))
        config = dict(raw.get("config") or {})
        pins = json.loads(config.pop(_PINS, "{}"))
        expanded: Mapping[str, Mapping[str, str]] = raw.get("expanded_devices") or {}
        config.pop(wire.REPLACES, None)
        config[wire.STATE] = wire.BUILT
        body = {
            **{
                key: raw.get(key)
                for key in ("architecture", "description", "ephemeral", "stateful", "profiles")
            },
            "config": config,
            "devices": pinned(raw.get("devices") or {}, expanded, pins),
        }
        await self._operations.run(Call("PUT", path("instances", name), body))


def _stays(key: str) -> bool:
    """MAC addresses, and the member that an evacuated instance goes back to."""
    return key == "volatile.evacuate.origin" or (key.startswith("volatile.") and key.endswith(".hwaddr"))
