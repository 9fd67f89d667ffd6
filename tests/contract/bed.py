"""A provider under test, and what its tests make of it and must not leave behind."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from iceshelves.connections.values import Connection
from iceshelves.providers import base
from iceshelves.providers.base import Image, Instance, InstanceSpec, Mark, Provider, require
from iceshelves.providers.registry import open_provider

ERR_AND_OUT = "echo out; echo err >&2; exit 3"
FAKE_SCRIPT = {
    "images": {"tiny": {}},
    "guests": {
        "*": {
            "commands": [
                {"like": f"sh -c {ERR_AND_OUT}", "status": 3, "stdout": "out\n", "stderr": "err\n"},
                {"like": "sh -c echo hello; sleep 0.5", "stdout": "hello\n"},
                {"like": "sleep *", "delay": 3600.0},
            ]
        }
    },
}


@dataclass
class Bed:
    """A provider under test, and what its tests make."""

    family: str
    connection: Connection
    provider: Provider
    prefix: str
    others: list[Provider] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    @property
    def lifecycle(self) -> base.Lifecycle:
        return require(self.provider, base.Lifecycle)

    @property
    def images(self) -> base.Images:
        return require(self.provider, base.Images)

    @property
    def guest(self) -> base.Guest:
        return require(self.provider, base.Guest)

    @property
    def reconfiguration(self) -> base.Reconfiguration:
        return require(self.provider, base.Reconfiguration)

    @property
    def volumes(self) -> base.Volumes:
        return require(self.provider, base.Volumes)

    @property
    def snapshots(self) -> base.Snapshots:
        return require(self.provider, base.Snapshots)

    @property
    def inventory(self) -> base.Inventory:
        return require(self.provider, base.Inventory)

    def another(self) -> Provider:
        """A second provider of the same cluster, as a second worker has one."""
        self.others.append(open_provider(self.family, self.connection))
        return self.others[-1]

    def mark(self, deployment: str = "dep", operation: str = "op1") -> Mark:
        mark = Mark(f"contract-{self.prefix}", deployment, operation, 1, "web@1.0.0")
        self.marks.append(mark)
        return mark

    async def image(self) -> Image:
        return await self.images.resolve("tiny", "container")

    async def spec(self, suffix: str = "a", mark: Mark | None = None) -> InstanceSpec:
        name = f"{self.prefix}-{suffix}"
        self.names.append(name)
        return InstanceSpec(
            name=name,
            kind="container",
            image=await self.image(),
            mark=mark or self.mark(),
            config={"cloud-init.user-data": "#cloud-config\nruncmd:\n- touch /root/first\n"},
        )

    async def created(self, suffix: str = "a") -> InstanceSpec:
        spec = await self.spec(suffix)
        await self.lifecycle.create(spec)
        return spec

    async def running(self, suffix: str = "a") -> InstanceSpec:
        spec = await self.created(suffix)
        await self.lifecycle.start(spec.name)
        return spec

    async def get(self, name: str) -> Instance:
        found = await self.lifecycle.find(name)
        assert found is not None
        return found

    async def clean(self) -> None:
        for name in set(self.names):
            found = await self.lifecycle.find(name)
            if found is not None and found.mark is not None:
                await self.lifecycle.delete(name, found.mark)
        for deployment in {mark.deployment for mark in self.marks}:
            await self.volumes.delete_all(replace(self.mark(), deployment=deployment))
        for provider in (*self.others, self.provider):
            await provider.close()
