"""A deployment's specification: everything that is needed to carry it out, frozen and self-contained.

It is what the database keeps (encrypted) for each revision and what will travel to an agent, so it names no
row, no provider and no connection.  ``Plan`` says how it came to be, so that the next revision can start
from the same wishes.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from iceshelves.core.units import parse_size
from iceshelves.providers.base import Image, InstanceKind, InstanceSpec, Mark, Volume


class Frozen(BaseModel):
    """Never changed once made; unknown fields are an error, for they were written by a newer version."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class CheckSpec(Frozen):
    """What must hold in the guest before the deployment is ready.  ``timeout`` in seconds, all tries."""

    name: str
    kind: Literal["command", "port", "http"]
    command: tuple[str, ...] = ()
    port: int | None = None
    url: str | None = None
    status: int = 200
    contains: str | None = None
    timeout: float = 60.0


class VolumeSpec(Frozen):
    """Storage that outlives the root file system; ``size`` as hypervisors write it."""

    name: str
    path: str
    size: str

    def to_volume(self) -> Volume:
        """The same for a provider, in bytes."""
        return Volume(self.name, self.path, parse_size(self.size))


class Wishes(Frozen):
    """What whoever deploys asked for, secrets included; the next revision starts from it."""

    parameters: dict[str, Any] = Field(default_factory=dict)
    config_overrides: dict[str, Any] = Field(default_factory=dict)
    image: str | None = None
    kind: InstanceKind | None = None
    profiles: tuple[str, ...] | None = None


class DeploymentSpec(Frozen):
    """An instance as an egg and its deployer's wishes make it."""

    instance: str
    kind: InstanceKind
    egg: str
    image: str
    #: fingerprint to ask for before ``image``: a roll-back returns to the same image
    pinned_image: str = ""
    config: dict[str, str] = Field(default_factory=dict)
    devices: dict[str, dict[str, str]] = Field(default_factory=dict)
    profiles: tuple[str, ...] = ("default",)
    volumes: tuple[VolumeSpec, ...] = ()
    checks: tuple[CheckSpec, ...] = ()
    member: str | None = None
    root_size: int | None = None
    #: replaced wherever they turn up in logs and errors
    secrets: tuple[str, ...] = ()
    wishes: Wishes = Field(default_factory=Wishes)

    def to_instance(
        self, image: Image, mark: Mark, volumes: dict[str, dict[str, str]] | None = None
    ) -> InstanceSpec:
        """What a provider is asked for."""
        return InstanceSpec(
            name=self.instance,
            kind=self.kind,
            image=image,
            mark=mark,
            config=self.config,
            devices={**self.devices, **(volumes or {})},
            profiles=self.profiles,
            member=self.member,
            root_size=self.root_size,
        )
