"""Saved states of an instance."""

from __future__ import annotations

from collections.abc import Sequence

from iceshelves.core.errors import Conflict, NotFound
from iceshelves.providers.base import Snapshot
from iceshelves.providers.incus.client import Call, Client, path
from iceshelves.providers.incus.operations import Operations
from iceshelves.providers.ownership import instance_not_found


class IncusSnapshots:
    """The :class:`~iceshelves.providers.base.Snapshots` of Incus and LXD."""

    def __init__(self, client: Client, operations: Operations) -> None:
        self._client = client
        self._operations = operations

    async def create(self, instance: str, name: str) -> None:
        if name in [snapshot.name for snapshot in await self.list(instance)]:
            return
        call = Call("POST", path("instances", instance, "snapshots"), {"name": name, "stateful": False})
        try:
            await self._operations.run(call)
        except Conflict as error:
            if error.code != "already_exists":
                raise

    async def list(self, instance: str) -> Sequence[Snapshot]:
        try:
            listed = await self._client.get_objects(path("instances", instance, "snapshots"))
        except NotFound as error:
            raise instance_not_found(instance) from error
        return [
            # LXD names them INSTANCE/SNAPSHOT, Incus just SNAPSHOT.
            Snapshot(str(raw.get("name", "")).rsplit("/", 1)[-1], str(raw.get("created_at", "")))
            for raw in listed
        ]

    async def restore(self, instance: str, name: str) -> None:
        if name not in [snapshot.name for snapshot in await self.list(instance)]:
            raise NotFound(f"{instance!r} has no snapshot {name!r}.", code="snapshot_not_found")
        await self._operations.run(Call("PUT", path("instances", instance), {"restore": name}))

    async def delete(self, instance: str, name: str) -> None:
        try:
            await self._operations.run(Call("DELETE", path("instances", instance, "snapshots", name)))
        except NotFound:
            return
