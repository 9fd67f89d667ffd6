"""What a recipe is once it is read.  Nothing in it points back to its folder: files carry their bytes.

Beside what a recipe names, each image gets the few files of :mod:`iceshelves.appliances.guest`: the program
that makes the environment, the scripts for the first and for each boot, and their systemd units.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from iceshelves.appliances.versions import upstream_version
from iceshelves.core.errors import InvalidInput

RECIPE: Final = "appliance.yaml"
README: Final = "README.md"

Distribution: TypeAlias = Literal["debian", "ubuntu"]
InstanceType: TypeAlias = Literal["container", "virtual-machine"]


@dataclass(frozen=True, slots=True)
class Base:
    """The distribution below; ``release`` is always its code name, such as ``bookworm`` or ``noble``."""

    distribution: Distribution
    release: str


@dataclass(frozen=True, slots=True)
class FromPackage:
    """The appliance's version is the upstream version of the package that the lock holds."""

    package: str


@dataclass(frozen=True)
class File:
    """A file of the image.  ``path`` is absolute and plain; owner and group are names known in the image."""

    path: str
    content: bytes = field(repr=False)
    mode: int = 0o644
    owner: str = "root"
    group: str = "root"


@dataclass(frozen=True, slots=True)
class Action:
    """A script that root runs in the image while it is built, after packages and files.

    One that begins with ``#!`` is run by the program it names, any other by ``sh -eu``; without a network
    unless it asks for one.
    """

    name: str
    run: str
    network: bool = False


@dataclass(frozen=True, slots=True)
class Services:
    """systemd units, with their suffix (``nginx.service``), that the image enables and disables."""

    enable: tuple[str, ...] = ()
    disable: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Port:
    """A port that the appliance serves."""

    number: int
    protocol: Literal["tcp", "udp"] = "tcp"
    description: str = ""


@dataclass(frozen=True, slots=True)
class Volume:
    """A folder with data that should outlive the instance; ``size`` in bytes, where one is recommended.

    With an ``owner`` (``user:group``), each boot gives it the folder, with ``mode``: what is mounted
    there hides the folder of the image.
    """

    name: str
    path: str
    description: str = ""
    size: int | None = None
    owner: str | None = None
    mode: int = 0o755


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of the services' environment.

    A ``secret`` has no default: where the instance sets none, it is generated at the first boot and kept.
    """

    name: str
    default: str | None = None
    description: str = ""
    secret: bool = False


@dataclass(frozen=True, slots=True)
class Health:
    """A shell ``command`` must exit 0 in the guest, run by root.  All times are in seconds.

    The image has it as :data:`iceshelves.appliances.guest.HEALTH`, which gives it the environment too.

    ``retries`` failures in a row, ``interval`` apart, make an instance unhealthy; failures during
    ``start_period`` after the boot do not count.
    """

    command: str
    interval: float = 5.0
    timeout: float = 10.0
    retries: int = 3
    start_period: float = 60.0


@dataclass(frozen=True, slots=True)
class Resources:
    """What an instance needs at least and should have: processors, and bytes."""

    min_cpu: int | None = None
    min_memory: int | None = None
    min_disk: int | None = None
    recommended_cpu: int | None = None
    recommended_memory: int | None = None
    recommended_disk: int | None = None


@dataclass(frozen=True)
class Profile:
    """Configuration and devices for an instance, as Incus and LXD take them."""

    config: Mapping[str, str] = field(default_factory=dict)
    devices: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AllowedSecret:
    """Something that looks like a secret, at ``path`` of the image, and why it may be in it.

    ``path`` may hold ``*`` and ``?``; ``rule`` is the code of the finding, None stands for all of them.
    """

    path: str
    reason: str
    rule: str | None = None


@dataclass(frozen=True)
class Recipe:
    """How an appliance's image is built, and what it is for whoever runs it."""

    name: str
    version: str | FromPackage
    description: str
    base: Base
    title: str = ""
    maintainer: str = ""
    homepage: str = ""
    tags: tuple[str, ...] = ()
    see_also: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ("amd64",)
    types: tuple[InstanceType, ...] = ("container",)
    packages: tuple[str, ...] = ()
    files: tuple[File, ...] = ()
    actions: tuple[Action, ...] = ()
    first_boot: str | None = None
    each_boot: str | None = None
    services: Services = Services()
    ports: tuple[Port, ...] = ()
    volumes: tuple[Volume, ...] = ()
    environment: tuple[Variable, ...] = ()
    health: Health | None = None
    resources: Resources = Resources()
    profile: Profile = field(default_factory=Profile)
    cloud_init: bool = True
    aliases: tuple[str, ...] = ()
    allow_secrets: tuple[AllowedSecret, ...] = ()

    def version_with(self, packages: Mapping[str, str]) -> str:
        """The appliance's version, given the installed ``packages`` and their full versions.

        Raises :class:`InvalidInput` (``version_package_missing``).
        """
        if isinstance(self.version, str):
            return self.version
        wanted = self.version.package
        if wanted not in packages:
            raise InvalidInput(
                f"The version of {self.name} is that of the package {wanted}, which is not in its image.",
                code="version_package_missing",
                hint=f"Add {wanted} to the recipe's packages, or write the version out.",
            )
        return upstream_version(packages[wanted])

    @functools.cached_property
    def digest(self) -> str:
        """``sha256:…`` over everything in the recipe, contents of files included; comments do not count."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True, default=_plain)
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _plain(value: Any) -> str:
    """File contents, for :attr:`Recipe.digest`."""
    return hashlib.sha256(value).hexdigest()
