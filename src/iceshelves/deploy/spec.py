"""A deployment's specification: everything that is needed to carry it out, frozen and self-contained.

It is what the database keeps (encrypted) for each revision and what will travel to an agent, so it names no
row, no provider and no connection.  ``Plan`` says how it came to be, so that the next revision can start
from the same wishes.  Plain dataclasses, since an agent has to stay small.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal

from iceshelves.core.units import parse_size
from iceshelves.providers.base import Image, InstanceKind, InstanceSpec, Mark, Volume

#: where an instance's configuration holds what cloud-init is to do
USER_DATA_KEY: Final = "cloud-init.user-data"

#: for pydantic, with which the server reads them: unknown members were written by a newer version
_STRICT: Final[dict[str, Any]] = {"extra": "forbid"}


@dataclass(frozen=True)
class CheckSpec:
    """What must hold in the guest before the deployment is ready.  ``timeout`` in seconds, all tries."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    name: str
    kind: Literal["command", "port", "http"]
    command: tuple[str, ...] = ()
    port: int | None = None
    url: str | None = None
    status: int = 200
    contains: str | None = None
    timeout: float = 60.0


@dataclass(frozen=True)
class VolumeSpec:
    """Storage that outlives the root file system; ``size`` as hypervisors write it."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    name: str
    path: str
    size: str

    def to_volume(self, member: str | None) -> Volume:
        """The same for a provider, in bytes; ``member`` is where its instance will be."""
        return Volume(self.name, self.path, parse_size(self.size), member)


@dataclass(frozen=True)
class Wishes:
    """What whoever deploys asked for, secrets included; the next revision starts from it."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    parameters: dict[str, Any] = field(default_factory=dict)
    config_overrides: dict[str, Any] = field(default_factory=dict)
    image: str | None = None
    kind: InstanceKind | None = None
    profiles: tuple[str, ...] | None = None


@dataclass(frozen=True)
class DeploymentSpec:
    """An instance as an egg and its deployer's wishes make it."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    instance: str
    kind: InstanceKind
    egg: str
    image: str
    #: fingerprint to ask for before ``image``: a roll-back returns to the same image
    pinned_image: str = ""
    config: dict[str, str] = field(default_factory=dict)
    devices: dict[str, dict[str, str]] = field(default_factory=dict)
    profiles: tuple[str, ...] = ("default",)
    volumes: tuple[VolumeSpec, ...] = ()
    checks: tuple[CheckSpec, ...] = ()
    #: a member's name, or ``auto`` (as ``None``) for the one with most room
    member: str | None = None
    root_size: int | None = None
    #: replaced wherever they turn up in logs and errors
    secrets: tuple[str, ...] = ()
    wishes: Wishes = field(default_factory=Wishes)

    def to_instance(
        self, image: Image, mark: Mark, volumes: dict[str, dict[str, str]] | None = None
    ) -> InstanceSpec:
        """What a provider is asked for; which member it goes to is not decided here."""
        return InstanceSpec(
            name=self.instance,
            kind=self.kind,
            image=image,
            mark=mark,
            config=self.config,
            devices={**self.devices, **(volumes or {})},
            profiles=self.profiles,
            root_size=self.root_size,
        )
