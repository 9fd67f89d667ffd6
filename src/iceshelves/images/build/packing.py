"""From a finished tree to the files of an image."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from iceshelves.appliances.model import Recipe
from iceshelves.images.build.describing import describe, template_files
from iceshelves.images.build.events import BuiltFile, BuiltImage
from iceshelves.images.build.job import Compression
from iceshelves.images.build.lock import Lock
from iceshelves.images.files import ImageFiles, fingerprints
from iceshelves.images.metadata import write_metadata
from iceshelves.images.squashfs import BlockCache, Gzip, Options, Rules, Xz, walk, write_squashfs

METADATA: Final = "metadata.tar.xz"
ROOTFS: Final = "rootfs.squashfs"

_FAST_BLOCK: Final = 128 * 1024


def pack_container(
    tree: Path, recipe: Recipe, lock: Lock, compression: Compression, blocks: BlockCache, target: Path
) -> BuiltImage:
    """Write metadata and squashfs of ``tree`` into the folder ``target``."""
    version = recipe.version_with(lock.versions())
    files = ImageFiles(target / METADATA, rootfs=target / ROOTFS)
    write_metadata(files.metadata, describe(recipe, lock, version), template_files(recipe))
    options = {
        "release": Options(Xz(), time=lock.epoch, cache=blocks),
        "fast": Options(Gzip(1), _FAST_BLOCK, time=lock.epoch, cache=blocks),
    }[compression]
    write_squashfs(walk(tree, Rules(epoch=lock.epoch)), target / ROOTFS, options)
    fingerprint = fingerprints(files).container or ""
    return BuiltImage("container", fingerprint, built_file(target / METADATA), built_file(target / ROOTFS))


def built_file(path: Path) -> BuiltFile:
    """The file's name, hash and size."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return BuiltFile(path.name, digest, path.stat().st_size)
