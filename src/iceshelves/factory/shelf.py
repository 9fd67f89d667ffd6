"""Images of the tenant's own registry, as deployments name them.

``registry:nginx``, ``registry:nginx/1.22.1``; ``@CHANNEL`` at the end takes it from another than ``stable``.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Sequence
from typing import Final

from iceshelves.core.errors import InvalidInput, NotFound
from iceshelves.factory.registries import Registries
from iceshelves.images.files import ImageFiles
from iceshelves.images.registry import STABLE, Entry, Group, Registry, Wanted
from iceshelves.images.simplestreams.names import ARCHITECTURES, SQUASHFS
from iceshelves.providers.base import InstanceKind

_REFERENCE: Final = re.compile(
    r"registry:(?P<alias>(?P<appliance>[a-z][a-z0-9-]{0,62})(?:/[A-Za-z0-9._+~-]{1,100})?)"
    r"(?:@(?P<channel>[a-z][a-z0-9-]{0,31}))?"
)


class RegistryShelf:
    """The registry of one tenant."""

    def __init__(self, registries: Registries, tenant_id: int) -> None:
        self._registries = registries
        self._tenant_id = tenant_id

    async def take(self, reference: str, kind: InstanceKind, architectures: Sequence[str]) -> ImageFiles:
        """The files of the newest build that has the alias.

        Raises :class:`NotFound` ``image_not_found``, :class:`InvalidInput` ``invalid_image``.
        """
        return await asyncio.to_thread(self._take, reference, kind, architectures)

    def _take(self, reference: str, kind: InstanceKind, architectures: Sequence[str]) -> ImageFiles:
        match = _REFERENCE.fullmatch(reference)
        if match is None:
            raise InvalidInput(
                f"{reference[:200]!r} names no image of the registry.",
                code="invalid_image",
                hint="Write registry:NAME, registry:NAME/VERSION or registry:NAME@CHANNEL.",
            )
        registry = self._registries.of(self._tenant_id)
        channel = match["channel"] or STABLE
        shown = {entry.architecture for entry in registry.find(Wanted(channel, match["appliance"]))}
        for architecture in sorted(shown):
            if ARCHITECTURES[architecture] not in architectures:
                continue
            with contextlib.suppress(NotFound):
                group = Group(channel, match["appliance"], architecture)
                return _files(registry, registry.resolve(match["alias"], group, kind))
        raise NotFound(
            f"The registry has no {reference} for a {kind} on {' or '.join(architectures)}.",
            code="image_not_found",
            hint="iceshelves image list shows what it has; iceshelves image build makes one.",
        )


def _files(registry: Registry, entry: Entry) -> ImageFiles:
    folder = registry.layout.images
    root = {file.kind: folder / file.name for file in entry.roots}
    return ImageFiles(
        metadata=folder / entry.metadata.name,
        rootfs=root.get(SQUASHFS),
        disk=next((path for kind, path in root.items() if kind != SQUASHFS), None),
    )
