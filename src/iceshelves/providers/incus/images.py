"""Images that instances start from: found among the daemon's own, or fetched by it from an image server.

The daemon does the fetching; no request leaves this process for an image.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from iceshelves.connections.values import ImageServer
from iceshelves.core.errors import Failed, InvalidInput, NotFound
from iceshelves.providers.base import Image, InstanceKind, Progress, no_progress
from iceshelves.providers.incus import errors
from iceshelves.providers.incus.client import Call, Client, path
from iceshelves.providers.incus.operations import Operations
from iceshelves.providers.incus.server import Server
from iceshelves.providers.incus.sharing import SharedWork

#: where each family's own client looks by default
IMAGE_SERVERS: Final[Mapping[str, Sequence[ImageServer]]] = {
    "incus": (ImageServer("images", "https://images.linuxcontainers.org"),),
    "lxd": (
        ImageServer("ubuntu", "https://cloud-images.ubuntu.com/releases", strip="ubuntu/"),
        ImageServer("images", "https://images.lxd.canonical.com"),
    ),
}

_REFERENCE: Final = re.compile(
    r"(?:(?P<server>[a-z0-9][a-z0-9-]*):)?(?P<alias>[A-Za-z0-9][A-Za-z0-9._/+-]{0,254})"
)
_SEED: Final = re.compile(r"/var/lib/cloud/seed/nocloud(-net)?/user-data")
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{12,64}")
# Image properties name a release by its codename (Debian, Ubuntu on some servers) or its number.
_CODENAMES: Final[Mapping[str, str]] = {
    "buster": "10", "bullseye": "11", "bookworm": "12", "trixie": "13", "forky": "14", "duke": "15",
    "focal": "20.04", "jammy": "22.04", "noble": "24.04", "plucky": "25.04", "questing": "25.10",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Wanted:
    server: str | None
    alias: str
    kind: InstanceKind


class IncusImages:
    """The :class:`~iceshelves.providers.base.Images` of Incus and LXD."""

    def __init__(
        self, client: Client, operations: Operations, server: Server, servers: Sequence[ImageServer]
    ) -> None:
        self._client = client
        self._operations = operations
        self._server = server
        self._fetches: SharedWork[Image] = SharedWork()
        self._servers = servers

    async def resolve(self, reference: str, kind: InstanceKind) -> Image:
        wanted = _parse(reference, kind)
        held = await self._client.get_objects(path("images"))
        found = _choose(held, wanted, self._servers)
        if found is not None:
            return _image(found, reference)
        if not any(True for _ in _sources(wanted, self._servers)):
            raise _not_found(reference, kind, _tried(wanted, self._servers))
        return Image(fingerprint="", reference=reference, kind=kind, cached=False)

    async def ensure(self, image: Image, progress: Progress = no_progress) -> Image:
        if image.fingerprint:
            try:
                return _image(
                    await self._client.get_object(path("images", image.fingerprint)), image.reference
                )
            except NotFound as error:
                raise _not_found(
                    image.reference, image.kind, ["the images that the hypervisor holds"]
                ) from error
        return await self._fetches.join(
            f"{image.kind} {image.reference}", lambda tell: self._fetch(image, tell), progress
        )

    async def supports_cloud_init(self, instance: str) -> bool:
        """Whether a template of the image writes our user-data where cloud-init's NoCloud reads it.

        Without one, cloud-init would have to ask the hypervisor by the socket ``/dev/lxd/sock`` (its
        DataSourceLXD).  LXD gives its guests that socket, Incus does not; so the program alone is enough on
        LXD only.  All images called ``…/cloud`` have the templates.
        """
        metadata = await self._client.get_object(path("instances", instance, "metadata"))
        templates: Mapping[str, Any] = metadata.get("templates") or {}
        if any(_SEED.fullmatch(name) for name in templates):
            return True
        return (await self._server.info()).family == "lxd" and await self._has_program(instance)

    async def _has_program(self, instance: str) -> bool:
        call = Call("GET", path("instances", instance, "files"), query={"path": "/usr/bin/cloud-init"})
        try:
            await self._client.read_raw(call, limit=1)
        except NotFound:
            return False
        return True

    async def _fetch(self, image: Image, progress: Progress) -> Image:
        wanted = _parse(image.reference, image.kind)
        words: list[str] = []
        silent: dict[str, None] = {}
        for server, alias in _sources(wanted, self._servers):
            try:
                return await self._pull(server, alias, image, progress)
            except (Failed, NotFound, InvalidInput) as error:
                words.append(f"{server.name}:{alias} ({error.message})")
                if "found" not in error.message:  # as it says when the server was asked and has none
                    silent[f"{server.name}:"] = None
        raise _not_found(image.reference, image.kind, [*_tried(wanted, ()), *words], list(silent))

    async def _pull(self, server: ImageServer, alias: str, image: Image, progress: Progress) -> Image:
        source = {
            "type": "image",
            "mode": "pull",
            "protocol": "simplestreams",
            "server": server.url,
            "alias": alias,
            "image_type": image.kind,
        }
        body = {"source": source, "auto_update": server.lasting}
        done = await self._operations.run_cancellable(Call("POST", path("images"), body), progress)
        fingerprint = done.metadata.get("fingerprint")
        if not isinstance(fingerprint, str):
            raise errors.bad_answer(self._client.where, "a fetched image without fingerprint")
        return _image(await self._client.get_object(path("images", fingerprint)), image.reference)


def _parse(reference: str, kind: InstanceKind) -> _Wanted:
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise InvalidInput(
            f"{reference!r} cannot be the name of an image.",
            code="invalid_image",
            hint="Write an alias such as debian/13, server:alias, or a fingerprint.",
        )
    return _Wanted(match["server"], match["alias"], kind)


def _choose(
    held: Sequence[Mapping[str, Any]], wanted: _Wanted, servers: Sequence[ImageServer]
) -> Mapping[str, Any] | None:
    """The held image that ``wanted`` means: alias, fingerprint, variant with cloud-init, fetched before."""
    images = [image for image in held if image.get("type", "container") == wanted.kind]
    if wanted.server is None:
        for test in (
            _has_alias(wanted.alias),
            _has_fingerprint(wanted.alias),
            _has_alias(f"{wanted.alias}/cloud"),
        ):
            for image in images:
                if test(image):
                    return image
    for server, alias in _sources(wanted, servers):
        if not server.lasting:
            continue  # the daemon does not keep its images fresh, so the server is asked each time
        for image in images:
            origin = image.get("update_source") or {}
            if origin.get("alias") == alias and origin.get("server") == server.url:
                return image
    return None


def _has_alias(alias: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda image: any(known.get("name") == alias for known in image.get("aliases") or ())


def _has_fingerprint(prefix: str) -> Callable[[Mapping[str, Any]], bool]:
    if not _FINGERPRINT.fullmatch(prefix):
        return lambda _image: False
    return lambda image: str(image.get("fingerprint", "")).startswith(prefix)


def _sources(wanted: _Wanted, servers: Sequence[ImageServer]) -> Iterator[tuple[ImageServer, str]]:
    """Where ``wanted`` may be fetched, in the order of trying: with cloud-init first."""
    for server in servers:
        if wanted.server is not None and wanted.server != server.name:
            continue
        if server.strip:
            if wanted.server is not None or wanted.alias.startswith(server.strip):
                yield server, wanted.alias.removeprefix(server.strip)
            continue
        if not wanted.alias.endswith("/cloud"):
            yield server, f"{wanted.alias}/cloud"
        yield server, wanted.alias


def _tried(wanted: _Wanted, servers: Sequence[ImageServer]) -> list[str]:
    if wanted.server is not None:
        return [f"the image server {wanted.server!r}"]
    names = [wanted.alias, f"{wanted.alias}/cloud"]
    return [f"local {name}" for name in names] + [
        f"{server.name}:{alias}" for server, alias in _sources(wanted, servers)
    ]


def _not_found(
    reference: str, kind: InstanceKind, tried: Sequence[str], silent: Sequence[str] = ()
) -> NotFound:
    """``tried`` and the daemon's words about each go into the details; ``silent`` servers did not answer."""
    details = {"reference": reference, "tried": list(tried)}
    if silent:
        return NotFound(
            f"The cluster has no image {reference!r} for a {kind}; {', '.join(silent)} could not be asked.",
            code="image_not_found",
            hint="'incus image list' there shows what it holds; use one of those with --image.",
            details=details,
        )
    return NotFound(
        f"There is no image {reference!r} for a {kind}, on the cluster or at its image servers.",
        code="image_not_found",
        hint="'incus image list' there shows what it holds; use one of those with --image.",
        details=details,
    )


def _image(raw: Mapping[str, Any], reference: str) -> Image:
    properties: Mapping[str, Any] = raw.get("properties") or {}
    kind: InstanceKind = "virtual-machine" if raw.get("type") == "virtual-machine" else "container"
    return Image(
        fingerprint=str(raw.get("fingerprint", "")),
        reference=reference,
        kind=kind,
        description=str(properties.get("description", "")),
        cached=True,
        release=release_of(properties),
    )


def release_of(properties: Mapping[str, Any]) -> str:
    """``debian/13`` from an image's properties ``os`` and ``release``; empty where they do not tell."""
    system, release = str(properties.get("os", "")).lower(), str(properties.get("release", "")).lower()
    release = _CODENAMES.get(release, release).removesuffix(" lts")
    return f"{system}/{release}" if system and release else ""
