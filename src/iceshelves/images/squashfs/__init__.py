"""Squashfs images, written by ourselves.

Compressing is nearly all the work of making an image, and images that share a base share most of their
blocks.  A writer of our own can remember compressed blocks (:mod:`.cache`), arrange files so that one more of
them disturbs only its neighbours (:mod:`.packing`), and needs neither root nor a tree on disk.
"""

from iceshelves.images.squashfs.cache import BlockCache
from iceshelves.images.squashfs.compressors import Compressor, Gzip, Xz
from iceshelves.images.squashfs.entries import (
    BlockDevice,
    Bytes,
    CharacterDevice,
    Content,
    Directory,
    Entry,
    Fifo,
    File,
    HardLink,
    Socket,
    Symlink,
)
from iceshelves.images.squashfs.tree import Rules, walk
from iceshelves.images.squashfs.writer import Options, Written, write_squashfs

__all__ = [
    "BlockCache",
    "BlockDevice",
    "Bytes",
    "CharacterDevice",
    "Compressor",
    "Content",
    "Directory",
    "Entry",
    "Fifo",
    "File",
    "Gzip",
    "HardLink",
    "Options",
    "Rules",
    "Socket",
    "Symlink",
    "Written",
    "Xz",
    "walk",
    "write_squashfs",
]
