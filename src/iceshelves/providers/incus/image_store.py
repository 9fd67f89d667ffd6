"""Images brought to the daemon: its own upload, split image or not, over whatever way it is reached."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import aiohttp

from iceshelves.core.errors import Conflict, Failed, InvalidInput, NotFound
from iceshelves.images.files import ImageFiles, fingerprints
from iceshelves.providers.base import Image, InstanceKind, Progress, no_progress
from iceshelves.providers.incus import errors
from iceshelves.providers.incus.client import Call, Client, path
from iceshelves.providers.incus.operations import Operations
from iceshelves.providers.incus.sharing import SharedWork

#: the daemons tell the kind of an image by the name of the field (doc/rest-api.md, POST /1.0/images)
_FIELDS: Final = {"container": "rootfs", "virtual-machine": "rootfs.img"}


class IncusImageStore:
    """The :class:`~iceshelves.providers.base.ImageStore` of Incus and LXD."""

    def __init__(self, client: Client, operations: Operations) -> None:
        self._client = client
        self._operations = operations
        self._sends: SharedWork[Image] = SharedWork()

    async def bring(self, files: ImageFiles, kind: InstanceKind, progress: Progress = no_progress) -> Image:
        found = await asyncio.to_thread(fingerprints, files)
        if kind == "container":
            root, fingerprint = files.rootfs, found.container
        else:
            root, fingerprint = files.disk, found.virtual_machine
        if root is None or fingerprint is None:
            raise InvalidInput(f"The image has nothing for a {kind}.", code="image_lacks_kind")
        image = Image(fingerprint=fingerprint, reference=fingerprint, kind=kind, cached=False)
        if await self._holds(fingerprint):
            return replace(image, cached=True)

        async def send(tell: Progress) -> Image:
            with _form(files.metadata, root, _FIELDS[kind]) as form:
                call = Call("POST", path("images"), form)
                done = await self._operations.run_cancellable(call, tell)
            if done.metadata.get("fingerprint") != fingerprint:
                raise errors.bad_answer(self._client.where, "another fingerprint than that of the files")
            return image

        try:
            return await self._sends.join(fingerprint, send, progress)
        except Conflict:  # somebody else has brought it meanwhile
            if not await self._holds(fingerprint):
                raise
            return replace(image, cached=True)

    async def _holds(self, fingerprint: str) -> bool:
        try:
            await self._client.get_object(path("images", fingerprint))
        except NotFound:
            return False
        return True

    async def drop(self, fingerprint: str) -> None:
        with contextlib.suppress(NotFound):
            await self._operations.run(Call("DELETE", path("images", fingerprint)))


@contextlib.contextmanager
def _form(metadata: Path, root: Path, field: str) -> Iterator[aiohttp.MultipartWriter]:
    """The two files as the daemons expect them, the metadata first."""
    with contextlib.ExitStack() as opened:
        form = aiohttp.MultipartWriter("form-data")
        for name, source in (("metadata", metadata), (field, root)):
            try:
                stream = opened.enter_context(source.open("rb"))
            except OSError as error:
                raise Failed(
                    f"The image's file {source.name} cannot be read: {error.strerror}.",
                    code="image_unreadable",
                ) from error
            part = form.append(stream, {"Content-Type": "application/octet-stream"})
            part.set_content_disposition("form-data", name=name, filename=source.name)
        yield form
