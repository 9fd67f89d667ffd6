"""Squashfs 4.0 on disk: its numbers and its superblock.

Source: Linux, ``fs/squashfs/squashfs_fs.h`` and ``super.c``; what is not written there is in the format's
description by the squashfs-tools-ng project, ``doc/format.adoc``.
"""

from __future__ import annotations

import struct
from dataclasses import astuple, dataclass
from typing import Final

MAGIC: Final = 0x73717368
VERSION: Final = (4, 0)
#: a place that is not there: no table, no fragment, no attributes
NOWHERE: Final = 0xFFFF_FFFF_FFFF_FFFF
NONE: Final = 0xFFFF_FFFF

METADATA_BLOCK: Final = 8192
METADATA_PLAIN: Final = 1 << 15  # in a metadata block's header: it is not compressed
BLOCK_PLAIN: Final = 1 << 24  # in a data block's size: it is not compressed
MIN_BLOCK: Final = 4096
MAX_BLOCK: Final = 1024 * 1024
#: what a file must be a multiple of to be attached as a device
PADDING: Final = 4096

FLAG_DEDUPLICATED: Final = 0x0040
FLAG_EXPORTABLE: Final = 0x0080
FLAG_NO_XATTRS: Final = 0x0200
FLAG_OPTIONS: Final = 0x0400

DIRECTORY: Final = 1
FILE: Final = 2
SYMLINK: Final = 3
BLOCK_DEVICE: Final = 4
CHARACTER_DEVICE: Final = 5
FIFO: Final = 6
SOCKET: Final = 7
#: added to the type of an inode that says more: attributes, links, large or sparse
EXTENDED: Final = 7

#: what the kernel adds to a listing's size for the "." and ".." that are not stored
DOTS: Final = 3
MAX_RUN: Final = 256  # names under one header of a listing

XATTR_PREFIXES: Final = {"user.": 0, "trusted.": 1, "security.": 2}

_SUPERBLOCK: Final = struct.Struct("<5I6H8Q")
SUPERBLOCK_SIZE: Final = _SUPERBLOCK.size


@dataclass(frozen=True, slots=True)
class Superblock:
    """The first 96 bytes, in their order.  Tables are given by their offset in the file."""

    magic: int
    inodes: int
    time: int
    block_size: int
    fragments: int
    compressor: int
    block_log: int
    flags: int
    ids: int
    major: int
    minor: int
    root: int
    bytes_used: int
    id_table: int
    xattr_table: int
    inode_table: int
    directory_table: int
    fragment_table: int
    export_table: int

    def pack(self) -> bytes:
        """Itself as it is stored."""
        return _SUPERBLOCK.pack(*astuple(self))

    @classmethod
    def unpack(cls, data: bytes) -> Superblock:
        """The superblock that ``data`` begins with, unjudged."""
        return cls(*_SUPERBLOCK.unpack_from(data))
