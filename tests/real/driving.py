"""What tests of the providers share: a connected one, an instance for a while, the address that it has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from iceshelves.connections.values import UnixSocket
from iceshelves.providers import base
from iceshelves.providers.base import InstanceSpec, Mark, Provider, require
from iceshelves.providers.incus.provider import IncusProvider

MARK = Mark("real", "dep", "op1", 1, "web@1.0.0")


@asynccontextmanager
async def connected(socket: object, family: str = "incus") -> AsyncIterator[Provider]:
    provider = IncusProvider(family, UnixSocket(str(socket), image_servers=()))
    try:
        yield provider
    finally:
        await provider.close()


@asynccontextmanager
async def instance(provider: Provider, name: str, image: str = "tiny") -> AsyncIterator[InstanceSpec]:
    found = await require(provider, base.Images).resolve(image, "container")
    spec = InstanceSpec(name, "container", found, MARK)
    lifecycle = require(provider, base.Lifecycle)
    await lifecycle.create(spec)
    try:
        yield spec
    finally:
        await lifecycle.delete(name, MARK)
        await require(provider, base.Volumes).delete_all(MARK)


async def address_of(provider: Provider, name: str) -> str:
    guest = require(provider, base.Guest)
    async with asyncio.timeout(15):
        while not (found := await guest.addresses(name)):
            await asyncio.sleep(0.1)
    return found[0]
