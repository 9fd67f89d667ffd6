"""Members of a cluster; a single server is a cluster of one."""

from __future__ import annotations

from collections.abc import Sequence

from iceshelves.providers.base import Member
from iceshelves.providers.incus.client import Client, path
from iceshelves.providers.incus.server import Server


class IncusPlacement:
    """The :class:`~iceshelves.providers.base.Placement` of Incus and LXD."""

    def __init__(self, client: Client, server: Server) -> None:
        self._client = client
        self._server = server

    async def members(self) -> Sequence[Member]:
        info = await self._server.info()
        if not info.clustered:
            info = await self._server.probe()
        if not info.clustered:
            return [Member(info.name, online=True, status="Online")]
        listed = await self._client.get_objects(path("cluster", "members"))
        return [
            Member(
                name=str(raw.get("server_name", "")),
                online=raw.get("status") == "Online",
                status=str(raw.get("status", "")),
                message=str(raw.get("message", "")),
            )
            for raw in listed
        ]
