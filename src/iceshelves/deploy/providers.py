"""The open providers: one per cluster, made when it is first needed, shared by all that work on it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from iceshelves.core.errors import InvalidInput, NotFound
from iceshelves.core.names import OBJECT_NAME
from iceshelves.providers.base import Provider
from iceshelves.providers.connection import Connection, ImageServer, UnixSocket, connection_from_url
from iceshelves.providers.registry import open_provider
from iceshelves.store.database import Database
from iceshelves.store.models import Cluster


def connection_of(cluster: Cluster) -> Connection:
    """How ``cluster`` is reached.  Raises :class:`InvalidInput`."""
    url = cluster.endpoint_url
    if cluster.provider == "fake":
        return connection_from_url(url or f"fake://{cluster.name}", cluster.options)
    if not url:
        raise InvalidInput(
            "The cluster's socket is missing.",
            code="invalid_connection",
            hint="Give its path, for example /var/lib/incus/unix.socket.",
        )
    connection = connection_from_url(url if url.startswith("unix:") else f"unix://{url}")
    if isinstance(connection, UnixSocket):
        servers = _image_servers(cluster.options)
        return replace(connection, project=cluster.project, image_servers=servers)
    raise InvalidInput(
        f"A cluster of family {cluster.provider} is reached by a unix socket, not by {url}.",
        code="invalid_connection",
    )


class _Source(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=f"^{OBJECT_NAME.pattern}$")]
    url: Annotated[str, Field(pattern=r"^https?://[^\s@]+$")]


class _IncusOptions(BaseModel):
    """``image_servers``: the SimpleStreams servers to fetch from, instead of the usual ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_servers: tuple[_Source, ...] | None = None


def _image_servers(options: dict[str, Any]) -> tuple[ImageServer, ...] | None:
    try:
        wanted = _IncusOptions.model_validate(options).image_servers
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(
            f"The cluster's options are wrong at {where}: {first['msg']}",
            code="invalid_options",
            hint='Write {"image_servers": [{"name": "own", "url": "https://images.example.org"}]}.',
        ) from error
    return None if wanted is None else tuple(ImageServer(source.name, source.url) for source in wanted)


class ProviderPool:
    """Lives on the event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._open: dict[int, Provider] = {}
        self._lock = asyncio.Lock()

    async def get(self, cluster_id: int) -> Provider:
        """The provider of a cluster.  Raises :class:`NotFound`, :class:`InvalidInput`."""
        found = self._open.get(cluster_id)
        if found is not None:
            return found
        async with self._lock:
            if cluster_id not in self._open:
                family, connection = await asyncio.to_thread(self._look_up, cluster_id)
                self._open[cluster_id] = open_provider(family, connection)
            return self._open[cluster_id]

    def _look_up(self, cluster_id: int) -> tuple[str, Connection]:
        with self._database.read() as session:
            cluster = session.get(Cluster, cluster_id)
            if cluster is None:
                raise NotFound("The cluster has been deleted.", code="cluster_not_found")
            return cluster.provider, connection_of(cluster)

    async def drop(self, cluster_id: int) -> None:
        """Close the provider of a cluster that was changed or deleted."""
        found = self._open.pop(cluster_id, None)
        if found is not None:
            await found.close()

    async def close(self) -> None:
        """Close them all."""
        for cluster_id in list(self._open):
            await self.drop(cluster_id)
