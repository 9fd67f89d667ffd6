"""The fake's world: what is there, kept in memory, and in a file if one is given.

A world outlives its providers: whoever opens a world of the same name in this process finds it as it was,
and with a file so does a later process, which lets a killed server be tested.  The world goes on by the
clock, not by tasks: work that was begun ends at its time whether or not anybody waits for it, just as a
hypervisor's does.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from iceshelves.connections.values import Scenario
from iceshelves.core.errors import Failed
from iceshelves.providers.base import Instance, InstanceKind, InventoryEvent, Mark, PowerState, Snapshot
from iceshelves.providers.fake import faults
from iceshelves.providers.fake.script import GuestScript, Script, read_script
from iceshelves.providers.ownership import instance_not_found

DEFAULT_IMAGES: Final = ("debian/12", "debian/13", "ubuntu/24.04")
_KINDS: Final[tuple[InstanceKind, ...]] = ("container", "virtual-machine")
#: calls remembered for tests to look at
_CALLS: Final = 100_000


@dataclass(slots=True)
class FakeImage:
    """An image that the world holds, or could fetch (``cached`` false)."""

    fingerprint: str
    reference: str
    kind: InstanceKind
    release: str
    cached: bool
    cloud_init: bool


@dataclass(slots=True)
class FakeInstance:
    """An instance, with the moment (seconds of the epoch) at which it was started last."""

    name: str
    kind: InstanceKind
    image: str
    mark: Mark | None
    power: PowerState = "stopped"
    settled: bool = True
    member: str | None = None
    config: dict[str, str] = field(default_factory=dict)
    devices: dict[str, dict[str, str]] = field(default_factory=dict)
    address: str = ""
    mac: str = ""
    started_at: float = 0.0
    #: by path; each character is one byte, since JSON has no bytes
    files: dict[str, str] = field(default_factory=dict)
    snapshots: list[Snapshot] = field(default_factory=list)
    #: how often each program was run, by its place in the guest's script
    runs: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class FakeVolume:
    """A volume; ``instance`` and ``name`` as the egg calls them, ``size`` in bytes."""

    instance: str
    name: str
    size: int
    mark: Mark
    member: str | None = None


@dataclass(slots=True)
class State:
    """All that a world keeps across processes."""

    images: dict[str, FakeImage] = field(default_factory=dict)
    instances: dict[str, FakeInstance] = field(default_factory=dict)
    volumes: dict[str, FakeVolume] = field(default_factory=dict)
    #: until when (seconds of the epoch) the world works on an instance
    busy: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    #: members that are evacuated, each with the instances that come back, and whether they ran
    evacuated: dict[str, dict[str, bool]] = field(default_factory=dict)
    next_address: int = 10


@dataclass(frozen=True, slots=True)
class Call:
    """A call that the world has seen."""

    action: str
    instance: str


_STATE: Final = TypeAdapter(State)


class FakeWorld:
    """One hypervisor system that is not there.  ``script`` may be replaced at any time."""

    def __init__(self, name: str, script: Script | None = None, file: Path | None = None) -> None:
        self.name = name
        self.script = script or Script()
        self.calls: list[Call] = []
        self.at_once = Counter[str]()
        self.most_at_once = Counter[str]()
        self._file = file
        self._watchers: list[Callable[[InventoryEvent], Awaitable[None]]] = []
        self.state = _load(file) if file is not None and file.exists() else State()
        self._add_images()

    def rewrite(self, script: Mapping[str, Any]) -> None:
        """Play ``script`` from now on, with its faults counted afresh."""
        self.script = read_script(script)
        self.state.counts.clear()
        self._add_images()
        self.save()

    @asynccontextmanager
    async def call(self, action: str, instance: str = "") -> AsyncIterator[None]:
        """Around each call: faults, the count of calls at once, and the action's delay at its end."""
        self.calls.append(Call(action, instance))
        del self.calls[:-_CALLS]
        fault = faults.fault_of(self.script, action, instance, self._count)
        self.at_once[action] += 1
        self.most_at_once[action] = max(self.most_at_once[action], self.at_once[action])
        try:
            await faults.before(fault)
            yield
            faults.after(fault)
        finally:
            self.at_once[action] -= 1

    async def work(self, action: str, instance: str) -> None:
        """Be busy with ``instance`` for ``action``'s delay.  Cancelling the caller does not end the work."""
        self.be_busy(instance, self.script.delays.get(action, 0.0))
        self.save()
        await self.settle(instance)

    def be_busy(self, instance: str, seconds: float) -> None:
        """Work on ``instance`` for that long from now."""
        if seconds > 0:
            self.state.busy[instance] = time.time() + seconds

    def switch_on(self, instance: FakeInstance) -> None:
        """Run ``instance``: its guest begins to boot."""
        instance.power = "running"
        instance.started_at = time.time()

    async def settle(self, instance: str) -> None:
        """Wait until the world no longer works on ``instance``."""
        while (left := self.state.busy.get(instance, 0.0) - time.time()) > 0:  # noqa: ASYNC110 (a clock, no event)
            await asyncio.sleep(left)
        self.state.busy.pop(instance, None)

    async def tell(self, action: str, instance: str) -> None:
        """Tell all who watch."""
        for watcher in list(self._watchers):
            await watcher(InventoryEvent(f"instance-{action}", instance, "default"))

    @asynccontextmanager
    async def watched_by(self, watcher: Callable[[InventoryEvent], Awaitable[None]]) -> AsyncIterator[None]:
        """Have ``watcher`` told of each change."""
        self._watchers.append(watcher)
        try:
            yield
        finally:
            self._watchers.remove(watcher)

    def instance(self, name: str) -> FakeInstance:
        """The instance; :class:`NotFound` ``instance_not_found`` if there is none."""
        instance = self.state.instances.get(name)
        if instance is None:
            raise instance_not_found(name)
        return instance

    def guest_script(self, instance: FakeInstance) -> GuestScript:
        """How the guest of ``instance`` behaves."""
        return self.script.guest_of(instance.name, instance.mark)

    def new_address(self) -> tuple[str, str]:
        """An IPv4 and a MAC address that nobody had yet."""
        number = self.state.next_address
        self.state.next_address += 1
        high, low = divmod(number, 250)
        return (
            f"10.64.{high % 256}.{low + 2}",
            f"00:16:3e:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}",
        )

    def save(self) -> None:
        """Write the state to the world's file, if it has one; a reader sees the old or the new one."""
        if self._file is None:
            return
        beside = self._file.with_name(f".{self._file.name}.{os.getpid()}")
        try:
            beside.write_bytes(_STATE.dump_json(self.state))
            beside.replace(self._file)
        except (OSError, ValueError) as error:
            raise Failed(
                f"The fake world's file {self._file.name!r} cannot be written.",
                code="bad_world_file",
                hint="Name a file in a folder that the server may write to.",
            ) from error

    def _count(self, place: int) -> int:
        key = str(place)
        self.state.counts[key] = self.state.counts.get(key, 0) + 1
        self.save()
        return self.state.counts[key]

    def _add_images(self) -> None:
        for reference in (*DEFAULT_IMAGES, *self.script.images):
            told = self.script.images.get(reference)
            for kind in _KINDS:
                fingerprint = sha256(f"{reference}/{kind}".encode()).hexdigest()
                if fingerprint in self.state.images and told is None:
                    continue
                release = told.release if told is not None and told.release is not None else reference
                self.state.images[fingerprint] = FakeImage(
                    fingerprint, reference, kind, release,
                    cached=told is None or told.cached, cloud_init=told is None or told.cloud_init,
                )  # fmt: skip


def as_instance(fake: FakeInstance) -> Instance:
    """``fake`` as a provider tells it."""
    return Instance(
        name=fake.name,
        kind=fake.kind,
        power=fake.power,
        mark=fake.mark,
        architecture="x86_64",
        member=fake.member,
        image=fake.image,
        settled=fake.settled,
        config=dict(fake.config),
        devices={name: dict(device) for name, device in fake.devices.items()},
    )


def _load(file: Path) -> State:
    try:
        return _STATE.validate_json(file.read_bytes())
    except ValidationError as error:
        raise Failed(
            f"The fake world's file {file.name} cannot be read.",
            code="bad_world_file",
            hint="Delete it to begin with an empty world.",
        ) from error


_WORLDS: Final[dict[str, FakeWorld]] = {}


def open_world(scenario: Scenario) -> FakeWorld:
    """The world that ``scenario`` names: as this process has it; a script given replaces its own."""
    script = read_script(scenario.script)
    world = _WORLDS.get(scenario.world)
    if world is None:
        file = Path(scenario.file) if scenario.file else None
        world = _WORLDS[scenario.world] = FakeWorld(scenario.world, script, file)
    elif scenario.script and script != world.script:
        world.rewrite(scenario.script)
    return world


def forget_world(name: str) -> None:
    """End the world ``name`` in this process; its file, if any, stays."""
    _WORLDS.pop(name, None)
