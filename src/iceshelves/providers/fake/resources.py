"""What else a fake world holds: images, volumes and snapshots."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

from iceshelves.core.clock import now, to_text
from iceshelves.core.errors import Conflict, InvalidInput, NotFound
from iceshelves.images.files import ImageFiles, fingerprints
from iceshelves.providers.base import (
    Image,
    InstanceKind,
    Mark,
    Progress,
    Snapshot,
    Volume,
    no_progress,
)
from iceshelves.providers.fake.world import FakeImage, FakeVolume, FakeWorld
from iceshelves.providers.ownership import not_ours, same_deployment


class FakeImages:
    """The :class:`~iceshelves.providers.base.Images` of the fake."""

    def __init__(self, world: FakeWorld) -> None:
        self._world = world

    async def resolve(self, reference: str, kind: InstanceKind) -> Image:
        async with self._world.call("resolve"):
            for image in self._world.state.images.values():
                named = image.reference == reference or (
                    len(reference) >= 12 and image.fingerprint.startswith(reference)
                )
                if named and image.kind == kind:
                    return _image(image, reference)
            names = sorted({image.reference for image in self._world.state.images.values()})
            raise NotFound(
                f"No image {reference!r} for a {kind} was found.",
                code="image_not_found",
                hint=f"This fake has {', '.join(names)}.",
            )

    async def ensure(self, image: Image, progress: Progress = no_progress) -> Image:
        async with self._world.call("ensure_image"):
            for held in self._world.state.images.values():
                if held.kind == image.kind and image.fingerprint in ("", held.fingerprint):
                    if not image.fingerprint and held.reference != image.reference:
                        continue
                    if not held.cached:
                        await self._download(held, progress)
                    return _image(held, image.reference)
            raise NotFound(f"There is no image {image.reference!r}.", code="image_not_found")

    async def supports_cloud_init(self, instance: str) -> bool:
        async with self._world.call("supports_cloud_init", instance):
            found = self._world.instance(instance)
            image = self._world.state.images.get(found.image)
            return self._world.guest_script(found).result != "absent" and (image is None or image.cloud_init)

    async def _download(self, image: FakeImage, progress: Progress) -> None:
        """Cancelling this leaves nothing: the image is there only at the end."""
        delay = self._world.script.delays.get("ensure_image", 0.0)
        for tenth in range(10):
            progress(tenth / 10, f"Downloading image: {tenth * 10}%")
            await asyncio.sleep(delay / 10)
        image.cached = True
        self._world.save()


class FakeImageStore:
    """The :class:`~iceshelves.providers.base.ImageStore` of the fake."""

    def __init__(self, world: FakeWorld) -> None:
        self._world = world

    async def bring(self, files: ImageFiles, kind: InstanceKind, progress: Progress = no_progress) -> Image:
        async with self._world.call("bring"):
            found = await asyncio.to_thread(fingerprints, files)
            fingerprint = found.container if kind == "container" else found.virtual_machine
            if fingerprint is None:
                raise InvalidInput(f"The image has nothing for a {kind}.", code="image_lacks_kind")
            if (held := self._world.state.images.get(fingerprint)) is not None:
                return _image(held, fingerprint)
            image = FakeImage(fingerprint, fingerprint, kind, release="", cached=True, cloud_init=True)
            progress(1.0, "Brought the image")
            self._world.state.images[fingerprint] = image
            self._world.save()
            return replace(_image(image, fingerprint), cached=False)

    async def drop(self, fingerprint: str) -> None:
        async with self._world.call("drop"):
            self._world.state.images.pop(fingerprint, None)
            self._world.save()


class FakeVolumes:
    """The :class:`~iceshelves.providers.base.Volumes` of the fake."""

    def __init__(self, world: FakeWorld) -> None:
        self._world = world

    async def ensure(self, instance: str, volume: Volume, mark: Mark) -> Mapping[str, str]:
        async with self._world.call("ensure_volume", instance):
            key = f"{instance}-{volume.name}"
            found = self._world.state.volumes.get(key)
            if found is not None and not same_deployment(mark, found.mark):
                raise not_ours(f"volume {key!r}")
            if found is None:
                self._world.state.volumes[key] = FakeVolume(
                    instance, volume.name, volume.size, mark, volume.member
                )
                await self._world.work("ensure_volume", instance)
            return {"type": "disk", "pool": "default", "source": key, "path": volume.path}

    async def member(self, mark: Mark) -> str | None:
        async with self._world.call("find_volumes"):
            ours = (v for v in self._world.state.volumes.values() if same_deployment(mark, v.mark))
            return next((volume.member for volume in ours), None)

    async def delete_all(self, mark: Mark) -> None:
        async with self._world.call("delete_volumes"):
            volumes = self._world.state.volumes
            for key in [key for key, found in volumes.items() if same_deployment(mark, found.mark)]:
                users = [i.name for i in self._world.state.instances.values() if _attaches(i.devices, key)]
                if users:
                    raise Conflict(f"The volume {key!r} is used by {users[0]!r}.", code="volume_in_use")
                del volumes[key]
            self._world.save()


class FakeSnapshots:
    """The :class:`~iceshelves.providers.base.Snapshots` of the fake."""

    def __init__(self, world: FakeWorld) -> None:
        self._world = world

    async def create(self, instance: str, name: str) -> None:
        async with self._world.call("create_snapshot", instance):
            held = self._world.instance(instance).snapshots
            if name not in [snapshot.name for snapshot in held]:
                held.append(Snapshot(name, to_text(now())))
                await self._world.work("create_snapshot", instance)

    async def list(self, instance: str) -> Sequence[Snapshot]:
        async with self._world.call("list_snapshots", instance):
            return list(self._world.instance(instance).snapshots)

    async def restore(self, instance: str, name: str) -> None:
        async with self._world.call("restore_snapshot", instance):
            if name not in [snapshot.name for snapshot in self._world.instance(instance).snapshots]:
                raise NotFound(f"{instance!r} has no snapshot {name!r}.", code="snapshot_not_found")
            await self._world.work("restore_snapshot", instance)

    async def delete(self, instance: str, name: str) -> None:
        async with self._world.call("delete_snapshot", instance):
            held = self._world.instance(instance).snapshots
            held[:] = [snapshot for snapshot in held if snapshot.name != name]
            await self._world.work("delete_snapshot", instance)


def _image(image: FakeImage, reference: str) -> Image:
    return Image(
        fingerprint=image.fingerprint,
        reference=reference,
        kind=image.kind,
        description=f"{image.reference} (fake)",
        cached=image.cached,
        release=image.release,
    )


def _attaches(devices: Mapping[str, Mapping[str, str]], volume: str) -> bool:
    return any(device.get("source") == volume for device in devices.values())
