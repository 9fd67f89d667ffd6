"""What a provider can be asked for: narrow capabilities, and the plain data that passes through them.

A provider says which capabilities it has; callers ask for a capability and never for a provider's name.
All methods are asynchronous, take plain values and raise from the one error tree:
:class:`~iceshelves.core.errors.NotFound`, ``Conflict``, ``InvalidInput``, ``Unsupported``, ``Denied`` (the
hypervisor refused), ``Failed`` (the hypervisor tried and failed, in its own words) and ``Temporary`` (it
could not be reached, or is busy).

Everything is safe to call again: a method first looks at what is.  That is what lets a killed worker's work
be continued by another.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar, runtime_checkable

from iceshelves.core.errors import Unsupported
from iceshelves.images.files import ImageFiles

InstanceKind = Literal["container", "virtual-machine"]
PowerState = Literal["running", "stopped", "frozen", "error", "unknown"]
OutputStream = Literal["stdout", "stderr"]

#: Told while long work runs: a fraction from 0 to 1, or ``None`` where the hypervisor gives none, and words.
Progress = Callable[[float | None, str], None]


def no_progress(_fraction: float | None, _words: str) -> None:
    """A :data:`Progress` for callers that do not show any."""


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """Who answers at the other end.  ``features`` are the hypervisor's own names of what it can do."""

    family: str
    version: str
    api_version: str
    name: str
    clustered: bool
    features: frozenset[str]
    kinds: frozenset[InstanceKind]
    #: that it runs, by the kernel's names (``x86_64``)
    architectures: tuple[str, ...] = ("x86_64",)


@dataclass(frozen=True, slots=True)
class Mark:
    """What tells ours from not ours; written on every object that we create.

    ``installation`` names this control plane, ``deployment`` the deployment, ``operation`` the operation that
    made this state, ``revision`` counts from 1 and ``egg`` reads ``name@version``.
    """

    installation: str
    deployment: str
    operation: str
    revision: int
    egg: str


@dataclass(frozen=True, slots=True)
class Image:
    """An image that the hypervisor holds, or can fetch: then ``fingerprint`` may be empty until it has."""

    fingerprint: str
    reference: str
    kind: InstanceKind
    description: str = ""
    cached: bool = True
    #: release of the operating system, by which cloud-init's schema is chosen: ``debian/13``; or empty
    release: str = ""


@dataclass(frozen=True, slots=True)
class InstanceSpec:
    """An instance as it should be.  ``config`` and ``devices`` use the hypervisor family's own keys."""

    name: str
    kind: InstanceKind
    image: Image
    mark: Mark
    config: Mapping[str, str] = field(default_factory=dict)
    devices: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    profiles: Sequence[str] = ("default",)
    member: str | None = None
    #: bytes; ``None`` keeps the profile's or the pool's own size
    root_size: int | None = None


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance as it is.  ``mark`` is ``None`` where it is not ours."""

    name: str
    kind: InstanceKind
    power: PowerState
    mark: Mark | None
    architecture: str = ""
    member: str | None = None
    image: str = ""
    description: str = ""
    #: false between the start of a rebuild and its end: the root file system is not what the mark says
    settled: bool = True
    #: false where its member is away: then only name, kind and member are known, and not its mark
    readable: bool = True
    config: Mapping[str, str] = field(default_factory=dict)
    devices: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Volume:
    """A storage volume of an instance that outlives its root file system.  ``size`` in bytes.

    ``member`` is where the instance will be: on a cluster, a local volume has to be there too.
    """

    name: str
    path: str
    size: int
    member: str | None = None


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a member has, and what of it is used: bytes, and processors as its guests can count them.

    ``memory_used`` leaves out what the kernel would give back at once.  ``storage`` is that of all pools
    that could be read, ``instances`` counts those of every project; both are ``None`` where nobody knows.
    """

    cpus: int
    memory: int
    memory_used: int
    storage: int | None = None
    storage_used: int | None = None
    instances: int | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """One machine of a cluster; ``status`` in the hypervisor's own words, ``online`` in ours.

    One that is evacuated is online, but takes no instances.  ``automatic`` is false where instances are only
    placed by name.  ``capacity`` is ``None`` where nobody asked for it, or the member did not say in time.
    """

    name: str
    online: bool
    status: str
    message: str = ""
    roles: Sequence[str] = ()
    evacuated: bool = False
    automatic: bool = True
    capacity: Capacity | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A saved state of an instance."""

    name: str
    created: str


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """A program to run in a guest.  With ``terminal`` set (columns, rows), both streams come as stdout."""

    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    user: int = 0
    group: int = 0
    cwd: str | None = None
    terminal: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class InventoryEvent:
    """Something changed: ``action`` in the hypervisor's words (``instance-started``) of instance ``name``.

    ``resync`` (of no name) says that anything may have changed.
    """

    action: str
    name: str
    project: str


class ExecSession(Protocol):
    """A program that runs in a guest.  Leaving its ``async with`` kills what still runs."""

    async def __aenter__(self) -> ExecSession: ...
    async def __aexit__(self, *exc: object) -> None: ...
    def output(self) -> AsyncIterator[tuple[OutputStream, bytes]]:
        """Chunks as they come, until both streams have ended."""
        ...

    async def write(self, data: bytes) -> None:
        """Send to standard input; an empty ``data`` ends it."""
        ...

    async def resize(self, columns: int, rows: int) -> None: ...
    async def signal(self, number: int) -> None: ...
    async def wait(self) -> int:
        """The exit status (128 + n where a signal n ended it), once the program has ended."""
        ...


class Lifecycle(Protocol):
    """Instances come, run and go."""

    async def validate(self, spec: InstanceSpec) -> None:
        """Raise if ``spec`` cannot work here: profiles, pools, networks, kind, member, keys."""
        ...

    async def find(self, name: str) -> Instance | None: ...
    async def create(self, spec: InstanceSpec, progress: Progress = no_progress) -> Instance:
        """Create it stopped, marked; if it exists with this mark's deployment and operation, return it.

        Waits first for whatever the hypervisor still does with an instance of that name (work of a killed
        predecessor).  :class:`Conflict` ``instance_exists`` if one is there that is not this deployment's.
        """
        ...

    async def start(self, name: str) -> None: ...
    async def stop(self, name: str, *, grace: float) -> None:
        """Shut down, and after ``grace`` seconds switch off; 0 switches off at once."""
        ...

    async def delete(self, name: str, mark: Mark) -> None:
        """Stop and delete it if it carries ``mark``'s deployment; gone already is well.

        :class:`Conflict` ``not_ours`` if the instance is not this deployment's.
        """
        ...


class Reconfiguration(Protocol):
    """A new revision of an instance in place."""

    async def validate(self, name: str) -> None: ...
    async def rebuild(self, spec: InstanceSpec, progress: Progress = no_progress) -> Instance:
        """Stop it, give it ``spec``'s image, config and mark, and leave it stopped.

        Keeps MAC and IP addresses and volumes; the root file system is new.  Continues a rebuild that was
        cut off, and does nothing if it was finished (same mark and ``settled``).
        """
        ...


class Images(Protocol):
    """Images that instances start from."""

    async def resolve(self, reference: str, kind: InstanceKind) -> Image:
        """Find ``reference`` (``debian/13``, an alias, a fingerprint, ``remote:alias``): local first.

        From an image server the variant with cloud-init is preferred (``…/cloud``).
        :class:`NotFound` ``image_not_found`` with what was tried.
        """
        ...

    async def ensure(self, image: Image, progress: Progress = no_progress) -> Image:
        """Have it on the hypervisor; returns it with its fingerprint.  Cancelling aborts the download."""
        ...

    async def supports_cloud_init(self, instance: str) -> bool:
        """Whether the image of the (created, not yet started) instance would read our user-data."""
        ...


class ImageStore(Protocol):
    """Images that are brought to the hypervisor rather than fetched by it."""

    async def bring(self, files: ImageFiles, kind: InstanceKind, progress: Progress = no_progress) -> Image:
        """Have the image of ``files`` there, by its fingerprint; ``cached`` says that it was there before.

        Several who bring the same at once send it once.  Cancelling leaves nothing.
        """
        ...

    async def drop(self, fingerprint: str) -> None:
        """Remove it; gone already is well."""
        ...


class Volumes(Protocol):
    """Storage volumes that outlive an instance's root file system."""

    async def ensure(self, instance: str, volume: Volume, mark: Mark) -> Mapping[str, str]:
        """Have it, marked; returns the device that attaches it, in the family's keys."""
        ...

    async def member(self, mark: Mark) -> str | None:
        """The member on whose own disk the volumes of ``mark``'s deployment lie, if they do."""
        ...

    async def delete_all(self, mark: Mark) -> None:
        """Delete every volume that carries ``mark``'s deployment."""
        ...


class Guest(Protocol):
    """Reach into a running guest."""

    async def exec(self, name: str, request: ExecRequest) -> ExecSession: ...
    async def read_file(self, name: str, path: str, limit: int) -> bytes:
        """At most ``limit`` bytes of a regular file."""
        ...

    async def write_file(self, name: str, path: str, data: bytes, mode: int) -> None: ...
    async def addresses(self, name: str) -> Sequence[str]:
        """Global IPv4 addresses first, then IPv6; link-local and loopback left out."""
        ...


class Snapshots(Protocol):
    """Saved states of an instance."""

    async def create(self, instance: str, name: str) -> None: ...
    async def list(self, instance: str) -> Sequence[Snapshot]: ...
    async def restore(self, instance: str, name: str) -> None: ...
    async def delete(self, instance: str, name: str) -> None: ...


class Inventory(Protocol):
    """Everything that is there, ours or not."""

    async def instances(self) -> Sequence[Instance]:
        """One cheap full read."""
        ...

    async def instance(self, name: str) -> Instance | None:
        """The same of one."""
        ...

    async def watch(self, tell: Callable[[InventoryEvent], Awaitable[None]]) -> None:
        """Tell every change until cancelled: ``resync`` once it watches, and again after each gap.

        Reconnects by itself.  Raises :class:`Temporary` where it cannot even begin.
        """
        ...

    async def adopt(self, name: str, mark: Mark) -> Instance:
        """Add ``mark`` to an instance that nobody has marked, and change nothing else.

        One that this installation has adopted already is given back as it is.  :class:`Conflict`
        ``not_ours`` if it carries any other mark.
        """
        ...

    async def release(self, name: str, installation: str) -> Instance:
        """Take the mark of an adoption away again; one without any mark is given back as it is.

        :class:`Conflict` ``not_ours`` if its mark is not that of an adoption by ``installation``.
        """
        ...


class Rights(Protocol):
    """What we may do there."""

    async def check(self) -> str:
        """See that our project is there and may be used, and say so in a few words.

        Raises :class:`NotFound` ``project_not_found`` and :class:`Denied` ``hypervisor_denied``.
        """
        ...


class Placement(Protocol):
    """Members of a cluster; a single server is a cluster of one."""

    async def members(self) -> Sequence[Member]:
        """Who there is and how they are, in one cheap read."""
        ...

    async def survey(self) -> Sequence[Member]:
        """The same with capacities.  All are asked at once, and one that is slow is told without."""
        ...

    async def evacuate(self, member: str, progress: Progress = no_progress) -> None:
        """Move its instances away, or stop those that cannot be moved; place none there from now on.

        Evacuated already is well.  :class:`NotFound` ``member_not_found``, :class:`Conflict`
        ``member_offline``, :class:`Unsupported` ``not_a_cluster``.
        """
        ...

    async def restore(self, member: str, progress: Progress = no_progress) -> None:
        """Take an evacuated member into use again, and bring its instances back.  Raises likewise."""
        ...


C = TypeVar("C")


@runtime_checkable
class Provider(Protocol):
    """A connected hypervisor system.  One per cluster, shared by all that work on it."""

    family: str

    async def probe(self) -> ServerInfo:
        """Ask who is there, right now.  The cheapest call that proves that work can be done."""
        ...

    def offers(self, capability: type[C]) -> C | None:
        """The capability, or ``None`` if this provider has not got it."""
        ...

    async def close(self) -> None: ...


def require(provider: Provider, capability: type[C]) -> C:
    """The capability, or :class:`Unsupported` in the user's terms."""
    found = provider.offers(capability)
    if found is None:
        raise Unsupported(
            f"A cluster of family {provider.family!r} cannot do this (no {capability.__name__.lower()}).",
            code="capability_missing",
            hint="iceshelves cluster show lists what each cluster can do.",
        )
    return found
