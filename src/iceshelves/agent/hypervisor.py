"""The hypervisor beside the agent: its provider, its health, and its instances as the server is told."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from iceshelves.agent.mirror import Mirror
from iceshelves.connections.unix import usual_socket
from iceshelves.connections.values import Connection, ImageServer, Scenario, UnixSocket
from iceshelves.core.errors import IceShelvesError, InvalidInput
from iceshelves.core.log import logger
from iceshelves.deploy.messages import AgentSettings, Health, SeenInstance
from iceshelves.providers.base import Instance, Inventory, InventoryEvent, Placement, Provider
from iceshelves.providers.incus.images import IMAGE_SERVERS
from iceshelves.providers.registry import open_provider

#: seconds for one look at the hypervisor; the server is told of its health at most this late
_PROBE_SECONDS: Final = 10.0
_HEALTH_SECONDS: Final = 30.0
_FULL_READ_SECONDS: Final = 600.0
#: seconds for which changes are gathered before everything is read again
_GATHER: Final = 0.5
#: the bound of the message; beyond it the list is cut
_MOST_INSTANCES: Final = 5000
_MOST_WORDS: Final = 1000

log: Final = logger(__name__)


class Hypervisor:
    """Lives on the event loop.  ``wake`` has the server told soon."""

    def __init__(self, socket: str, wake: Callable[[], None], mirror: Mirror) -> None:
        self._socket = socket
        self._mirror = mirror
        self._wake = wake
        self._family = "incus"
        #: what of the settings the provider was opened with
        self._opened: tuple[object, ...] | None = None
        self._opening = asyncio.Lock()
        self._provider: Provider | None = None
        self._ready = asyncio.Event()
        self._watcher: asyncio.Task[None] | None = None
        self._beat: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self.health: Health | None = None
        #: what the server has not been told; ``None`` once it has
        self.instances: list[SeenInstance] | None = None

    @property
    def socket(self) -> str:
        """The daemon's socket."""
        return self._socket or usual_socket(self._family)

    async def provider(self) -> Provider:
        """The provider, once the server has said which."""
        await self._ready.wait()
        if self._provider is None:
            raise InvalidInput("The agent has no provider.", code="no_provider")
        return self._provider

    async def apply(self, settings: AgentSettings) -> None:
        """Use what the server decided; only a change opens the hypervisor anew.

        What cannot be opened is told as the hypervisor's health, and tried again at the next poll.
        """
        async with self._opening:
            if self._opened == _opens(settings):
                return
            await self.close()
            self._family = settings.provider
            try:
                provider = open_provider(settings.provider, await self._connection(settings))
            except IceShelvesError as error:
                log.warning("the hypervisor cannot be opened: %s", error)
                self.health = Health(ok=False, message=error.message[:_MOST_WORDS])
                return
            self._provider, self._opened = provider, _opens(settings)
            self._ready.set()
            self._watcher = asyncio.create_task(_for_ever(partial(self._watch, provider)))
            self._beat = asyncio.create_task(_for_ever(partial(self._keep_looking, provider)))

    def tell_again(self, instances: list[SeenInstance] | None) -> None:
        """The server did not get them; unless there is something newer, they are told at the next poll."""
        if self.instances is None:
            self.instances = instances

    async def close(self) -> None:
        """Let go of the hypervisor."""
        self._ready.clear()
        self._opened = None
        for task in (self._watcher, self._beat):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        provider, self._provider = self._provider, None
        if provider is not None:
            await provider.close()
        await self._mirror.close()

    async def _connection(self, settings: AgentSettings) -> Connection:
        if settings.provider == "fake":
            return Scenario(settings.project, self._socket or None, settings.options)
        servers = None
        if settings.image_servers is not None:
            servers = tuple(ImageServer(each["name"], each["url"]) for each in settings.image_servers)
        if settings.pass_images:
            usual = IMAGE_SERVERS[settings.provider] if servers is None else servers
            servers = await self._mirror.serve(usual)
        return UnixSocket(self.socket, settings.project, servers)

    async def _watch(self, provider: Provider) -> None:
        inventory = provider.offers(Inventory)
        if inventory is None:
            return

        async def notice(_event: InventoryEvent) -> None:
            self._changed.set()

        await inventory.watch(notice)

    async def _keep_looking(self, provider: Provider) -> None:
        """Health at every beat; everything that is there after a change, and now and then in any case."""
        loop = asyncio.get_running_loop()
        next_full = 0.0
        while True:
            before = self.health
            self.health = await _health_of(provider)
            came_back = self.health.ok and (before is None or not before.ok)
            if self._changed.is_set() or came_back or loop.time() >= next_full:
                self._changed.clear()
                if await self._read_all(provider):
                    next_full = loop.time() + _FULL_READ_SECONDS
            if before is None or before.ok != self.health.ok or self.instances is not None:
                self._wake()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_HEALTH_SECONDS):
                    await self._changed.wait()
                    await asyncio.sleep(_GATHER)

    async def _read_all(self, provider: Provider) -> bool:
        inventory = provider.offers(Inventory)
        if inventory is None:
            return True
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                found = await inventory.instances()
        except (IceShelvesError, TimeoutError) as error:
            log.debug("the instances could not be read: %s", error)
            return False
        self.instances = [_seen(instance) for instance in found][:_MOST_INSTANCES]
        return True


async def _for_ever(work: Callable[[], Awaitable[None]]) -> None:
    """Do ``work`` again whenever it ends, however it ends."""
    while True:
        try:
            await work()
        except IceShelvesError as error:
            log.debug("tried again: %s", error)
        except Exception:
            log.exception("looking at the hypervisor failed; it is tried again")
        await asyncio.sleep(_HEALTH_SECONDS)


async def _health_of(provider: Provider) -> Health:
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            server = await provider.probe()
            placement = provider.offers(Placement) if server.clustered else None
            members = [] if placement is None else await placement.members()
    except TimeoutError:
        return Health(ok=False, message=f"The hypervisor did not answer within {_PROBE_SECONDS:.0f} s.")
    except IceShelvesError as error:
        return Health(ok=False, message=error.message[:_MOST_WORDS])
    return Health(
        ok=True,
        message=f"{server.family} {server.version} on {server.name}"[:_MOST_WORDS],
        server={
            "family": server.family,
            "version": server.version,
            "api_version": server.api_version,
            "name": server.name,
            "clustered": server.clustered,
            "kinds": sorted(server.kinds),
        },
        members=[dataclasses.asdict(member) for member in members],
    )


def _seen(instance: Instance) -> SeenInstance:
    return SeenInstance(
        name=instance.name,
        kind=instance.kind,
        power=instance.power,
        architecture=instance.architecture[:32],
        member=None if instance.member is None else instance.member[:63],
        image=instance.image[:64],
        description=instance.description[:1000],
        mark=None if instance.mark is None else dataclasses.asdict(instance.mark),
    )


def _opens(settings: AgentSettings) -> tuple[object, ...]:
    """What of the settings decides how the hypervisor is opened."""
    return (
        settings.provider, settings.project, settings.image_servers, settings.options, settings.pass_images
    )  # fmt: skip
