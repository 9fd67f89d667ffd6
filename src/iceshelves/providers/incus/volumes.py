"""Custom storage volumes, named after their instance and marked, in the pool of its root disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from iceshelves.core.errors import Conflict, Failed, InvalidInput, NotFound
from iceshelves.providers.base import Mark, Volume
from iceshelves.providers.incus import wire
from iceshelves.providers.incus.client import Call, Client, path
from iceshelves.providers.incus.operations import Operations
from iceshelves.providers.ownership import not_ours, same_deployment

#: drivers that cannot limit a volume's size on every host (doc/reference/storage_dir.md: needs quotas)
_UNSIZED: Final = frozenset({"dir"})


class IncusVolumes:
    """The :class:`~iceshelves.providers.base.Volumes` of Incus and LXD."""

    def __init__(self, client: Client, operations: Operations) -> None:
        self._client = client
        self._operations = operations

    async def ensure(self, instance: str, volume: Volume, mark: Mark) -> Mapping[str, str]:
        """Have it.  Before its instance exists it is put into the pool of the default profile's root disk.

        Raises :class:`Conflict` ``not_ours`` if a volume of that name belongs to something else.
        """
        name = f"{instance}-{volume.name}"
        owner = await self._owner(instance)
        pool = _pool_of(owner)
        found = await self._find(pool, name)
        if found is None:
            await self._create(pool, name, volume, mark, owner)
        elif not same_deployment(mark, wire.mark_from_config(found.get("config") or {})):
            raise not_ours(f"volume {name!r}")
        return {"type": "disk", "pool": pool, "source": name, "path": volume.path}

    async def member(self, mark: Mark) -> str | None:
        targets = (_target(raw) for _, raw in await self._all_of(mark))
        return next((target["target"] for target in targets if target), None)

    async def delete_all(self, mark: Mark) -> None:
        for where, raw in await self._all_of(mark):
            await self._delete(where, raw)

    async def _all_of(self, mark: Mark) -> list[tuple[str, dict[str, Any]]]:
        """The volumes that carry ``mark``'s deployment, each with its path."""
        found: list[tuple[str, dict[str, Any]]] = []
        for pool in await self._client.get_objects(path("storage-pools")):
            where = ("storage-pools", str(pool.get("name", "")), "volumes", "custom")
            found.extend(
                (path(*where, str(raw.get("name", ""))), raw)
                for raw in await self._client.get_objects(path(*where))
                if same_deployment(mark, wire.mark_from_config(raw.get("config") or {}))
            )
        return found

    async def _owner(self, instance: str) -> Mapping[str, Any]:
        try:
            return await self._client.get_object(path("instances", instance))
        except NotFound:
            return await self._client.get_object(path("profiles", "default"))

    async def _find(self, pool: str, name: str) -> dict[str, Any] | None:
        try:
            return await self._client.get_object(path("storage-pools", pool, "volumes", "custom", name))
        except NotFound:
            return None

    async def _create(
        self, pool: str, name: str, volume: Volume, mark: Mark, owner: Mapping[str, Any]
    ) -> None:
        driver = (await self._client.get_object(path("storage-pools", pool))).get("driver")
        config = wire.mark_to_config(mark)
        if volume.size > 0 and driver not in _UNSIZED:
            config["size"] = f"{volume.size}B"
        body = {"name": name, "type": "custom", "content_type": "filesystem", "config": config}
        target = _target(owner) or ({"target": volume.member} if volume.member else {})
        where = path("storage-pools", pool, "volumes", "custom")
        try:
            await self._operations.run(Call("POST", where, body, query=target))
        except Conflict:
            found = await self._find(pool, name)
            if found is None or not same_deployment(mark, wire.mark_from_config(found.get("config") or {})):
                raise

    async def _delete(self, where: str, raw: Mapping[str, Any]) -> None:
        try:
            await self._operations.run(Call("DELETE", where, query=_target(raw)))
        except NotFound:
            return
        except (Failed, InvalidInput) as error:
            if not raw.get("used_by"):
                raise
            raise Conflict(
                f"The volume {raw.get('name')!r} is used by {', '.join(map(str, raw['used_by']))}.",
                code="volume_in_use",
                hint="Detach it, or delete the instance that uses it first.",
            ) from error


def _target(located: Mapping[str, Any]) -> dict[str, str]:
    """The query that leads to the member where ``located`` is; a single server has none."""
    location = located.get("location")
    return {"target": str(location)} if location not in (None, "", "none") else {}


def _pool_of(owner: Mapping[str, Any]) -> str:
    """The pool of the root disk of an instance or a profile."""
    root = wire.root_device(owner.get("expanded_devices") or owner.get("devices") or {})
    pool = root[1].get("pool") if root is not None else None
    if not pool:
        raise InvalidInput(
            "No storage pool for the volume: neither the instance nor the default profile has a root disk.",
            code="no_root_disk",
            hint="incus profile device add default root disk path=/ pool=default (lxc on LXD)",
        )
    return pool
