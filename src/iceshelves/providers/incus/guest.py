"""Reach into a running guest: programs, files, addresses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from iceshelves.core.errors import Conflict, InvalidInput, NotFound
from iceshelves.providers.base import ExecRequest, ExecSession
from iceshelves.providers.incus.client import Call, Client, path
from iceshelves.providers.incus.exec import open_exec
from iceshelves.providers.incus.operations import Operations


class IncusGuest:
    """The :class:`~iceshelves.providers.base.Guest` of Incus and LXD."""

    def __init__(self, client: Client, operations: Operations) -> None:
        self._client = client
        self._operations = operations

    async def exec(self, name: str, request: ExecRequest) -> ExecSession:
        return await open_exec(self._client, self._operations, name, request)

    async def read_file(self, name: str, path: str, limit: int) -> bytes:
        try:
            data, headers = await self._client.read_raw(_file_call("GET", name, path), limit)
        except NotFound as error:
            raise NotFound(f"There is no file {path} in {name!r}.", code="file_not_found") from error
        kind = headers.get("X-Incus-Type") or headers.get("X-LXD-Type")
        if kind != "file":
            raise Conflict(f"{path} in {name!r} is a {kind}, not a regular file.", code="not_a_file")
        return data

    async def write_file(self, name: str, path: str, data: bytes, mode: int) -> None:
        # Each daemon reads its own spelling of a header and ignores the other's.
        headers = {
            f"X-{family}-{key}": value
            for family in ("Incus", "LXD")
            for key, value in (("type", "file"), ("mode", f"{mode:04o}"), ("uid", "0"), ("gid", "0"))
        }
        call = _file_call("POST", name, path)
        await self._client.write_raw(
            Call(call.method, call.path, data, query=call.query),
            {**headers, "Content-Type": "application/octet-stream"},
        )

    async def addresses(self, name: str) -> Sequence[str]:
        return global_addresses(await self._client.get_object(path("instances", name, "state")))


def _file_call(method: str, name: str, file: str) -> Call:
    if not file.startswith("/"):
        raise InvalidInput(f"{file!r} is not an absolute path.", code="invalid_path")
    return Call(method, path("instances", name, "files"), query={"path": file})


def global_addresses(state: dict[str, Any]) -> list[str]:
    """Global addresses in an instance's ``state``, IPv4 first; ``lo`` and link-local left out."""
    found: dict[str, list[str]] = {"inet": [], "inet6": []}
    for nic, details in (state.get("network") or {}).items():
        for address in (details or {}).get("addresses") or ():
            if nic != "lo" and address.get("scope") == "global" and address.get("family") in found:
                found[address["family"]].append(str(address.get("address", "")))
    return [*found["inet"], *found["inet6"]]
