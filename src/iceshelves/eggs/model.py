"""What an egg is once it is read: its metadata, its parameters and checks, and its files."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

from iceshelves.eggs.semver import SemVer

METADATA: Final = "metadata.json"
USER_DATA: Final = "cloud-init.yaml"
LXD_PROFILE: Final = "lxd-profile.yaml"
KVM_CONFIG: Final = "kvm-config.xml"
README: Final = "README.md"

ParameterType: TypeAlias = Literal["string", "integer", "number", "boolean", "choice", "list"]
Rendering: TypeAlias = Literal["none", "jinja"]
ListPolicy: TypeAlias = Literal["replace", "append"]


@dataclass(frozen=True)
class Parameter:
    """A typed value that whoever deploys an egg may set.

    ``minimum`` and ``maximum`` bound numbers; the lengths count characters of a string or entries of a list;
    ``pattern`` must match the whole string, or each entry of a list.  A ``secret`` is never shown again.
    """

    name: str
    type: ParameterType = "string"
    description: str = ""
    default: Any = None
    required: bool = False
    secret: bool = False
    pattern: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    min_length: int | None = None
    max_length: int | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Check:
    """What must be true in or at the instance before its deployment is ready; exactly one kind is set.

    ``command`` runs in the guest and must exit 0; ``port`` must accept TCP connections; ``url`` must answer
    ``status`` and, when given, hold ``contains``.  In ``url`` the host ``{address}`` stands for
    the instance's own address.  ``timeout`` is in seconds, all tries together.
    """

    name: str
    kind: Literal["command", "port", "http"]
    command: tuple[str, ...] = ()
    port: int | None = None
    url: str | None = None
    status: int = 200
    contains: str | None = None
    timeout: float = 60.0

    def url_at(self, address: str) -> str | None:
        """``url`` with the instance's ``address`` (bracketed when it is IPv6) in its place."""
        if self.url is None:
            return None
        return self.url.replace("{address}", f"[{address}]" if ":" in address else address)


@dataclass(frozen=True)
class Volume:
    """Storage that outlives the instance, mounted at ``path``; ``size`` for example ``10GiB``."""

    name: str
    path: str
    size: str


@dataclass(frozen=True)
class Profile:
    """An LXD or Incus profile: instance configuration and devices, as they go into the instance."""

    config: Mapping[str, str] = field(default_factory=dict)
    devices: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    description: str = ""
    name: str = ""


@dataclass(frozen=True)
class Metadata:
    """``metadata.json`` with its defaults; ``raw`` is all of it, unknown keys included.

    ``checks`` and ``volumes`` stay raw here: their texts may be templates, and are typed once rendered.
    """

    name: str
    version: SemVer
    display_name: str
    description: str = ""
    category: str = "custom"
    egg_type: str = "lxd-container"
    base_image: str | None = None
    author: str | None = None
    created: str | None = None
    tags: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    requirements: Mapping[str, Any] = field(default_factory=dict)
    parameters: tuple[Parameter, ...] = ()
    rendering: Rendering = "none"
    rendered_files: tuple[str, ...] = (USER_DATA,)
    checks: tuple[Mapping[str, Any], ...] = ()
    volumes: tuple[Mapping[str, Any], ...] = ()
    merge: ListPolicy = "replace"
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Egg:
    """A versioned cloud-init package.  ``files`` are its files byte for byte, by relative POSIX name."""

    metadata: Metadata
    files: Mapping[str, bytes] = field(repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "files", MappingProxyType(dict(sorted(self.files.items()))))

    @property
    def name(self) -> str:
        """The egg's name."""
        return self.metadata.name

    @property
    def version(self) -> SemVer:
        """The egg's version."""
        return self.metadata.version

    @functools.cached_property
    def digest(self) -> str:
        """``sha256:…`` over the sorted names, lengths and bytes of all files; no archive takes part in it."""
        hasher = hashlib.sha256()
        for name, content in self.files.items():
            encoded = name.encode()
            hasher.update(b"%d:%s%d:" % (len(encoded), encoded, len(content)))
            hasher.update(content)
        return f"sha256:{hasher.hexdigest()}"

    @property
    def user_data(self) -> bytes:
        """``cloud-init.yaml`` as it is in the egg."""
        return self.files[USER_DATA]

    @property
    def lxd_profile(self) -> bytes | None:
        """``lxd-profile.yaml``, if there is one."""
        return self.files.get(LXD_PROFILE)

    @property
    def kvm_config(self) -> bytes | None:
        """``kvm-config.xml``, if there is one."""
        return self.files.get(KVM_CONFIG)

    @property
    def readme(self) -> bytes | None:
        """``README.md``, if there is one."""
        return self.files.get(README)
