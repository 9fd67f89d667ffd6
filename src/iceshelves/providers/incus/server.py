"""Who answers at the other end, read once and kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from iceshelves.core.errors import Denied
from iceshelves.providers.base import InstanceKind, ServerInfo
from iceshelves.providers.incus import errors
from iceshelves.providers.incus.client import Client

# The driver's name of each kind, in environment.driver: "lxc | qemu".
_DRIVERS: Final[Mapping[str, InstanceKind]] = {"lxc": "container", "qemu": "virtual-machine"}


class Server:
    """Reads ``GET /1.0``; its answer is kept until the next :meth:`probe`."""

    def __init__(self, client: Client, family: str) -> None:
        self._client = client
        self._family = family
        self._info: ServerInfo | None = None

    async def probe(self) -> ServerInfo:
        """Ask now.  Raises :class:`Denied` ``not_trusted`` where we are not allowed in."""
        raw = await self._client.get_object("/1.0")
        if raw.get("auth") != "trusted":
            raise Denied(
                f"The hypervisor at {self._client.where} does not trust us.",
                code="not_trusted",
                hint="On its socket: run as root or in the group incus-admin (lxd for LXD). Over TLS: add our"
                " certificate there, with a token or by hand: incus config trust add-certificate FILE",
            )
        environment = raw.get("environment")
        if not isinstance(environment, dict):
            raise errors.bad_answer(self._client.where, "no environment")
        self._info = _read(raw, environment, self._family)
        return self._info

    async def info(self) -> ServerInfo:
        """As of the last probe."""
        return self._info or await self.probe()


def _read(raw: Mapping[str, Any], environment: Mapping[str, Any], family: str) -> ServerInfo:
    drivers = [part.strip() for part in str(environment.get("driver", "")).split("|")]
    return ServerInfo(
        family=str(environment.get("server") or family),
        version=str(environment.get("server_version", "")),
        api_version=str(raw.get("api_version", "")),
        name=str(environment.get("server_name", "")),
        clustered=environment.get("server_clustered") is True,
        features=frozenset(str(name) for name in raw.get("api_extensions") or ()),
        kinds=frozenset(_DRIVERS[name] for name in drivers if name in _DRIVERS),
        architectures=tuple(str(name) for name in environment.get("architectures") or ()),
    )
