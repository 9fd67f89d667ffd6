"""Images that are made in a moment, for tests of what publishes them: right in form, and of any content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from iceshelves.images.files import ImageFiles
from iceshelves.images.metadata import ImageMetadata, write_metadata

CREATED = 1_790_000_000  # 2026-09-21


@dataclass(frozen=True)
class Made:
    """What an image is to be; ``rootfs`` and ``disk`` are the bytes after the files' magic ones."""

    name: str = "nginx"
    version: str = "1.22.1"
    architecture: str = "amd64"
    serial: str = "20260921_0600"
    rootfs: bytes | None = b"root"
    disk: bytes | None = None
    properties: Mapping[str, str] = field(default_factory=dict)

    def files(self, folder: Path) -> ImageFiles:
        """Its files, written to ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        metadata = folder / "meta.tar.xz"
        write_metadata(metadata, self._metadata(), {})
        rootfs, disk = folder / "rootfs.squashfs", folder / "disk.qcow2"
        if self.rootfs is not None:
            rootfs.write_bytes(b"hsqs" + bytes(92) + self.rootfs)
        if self.disk is not None:
            disk.write_bytes(b"QFI\xfb" + bytes(100) + self.disk)
        return ImageFiles(
            metadata,
            rootfs if self.rootfs is not None else None,
            disk if self.disk is not None else None,
        )

    def _metadata(self) -> ImageMetadata:
        kernel = {"amd64": "x86_64", "arm64": "aarch64"}.get(self.architecture, self.architecture)
        own = {
            "os": "Debian",
            "release": "bookworm",
            "variant": self.name,
            "architecture": self.architecture,
            "version": self.version,
            "serial": self.serial,
            "description": f"{self.name} {self.version}",
        }
        return ImageMetadata(kernel, CREATED, properties={**own, **self.properties})
