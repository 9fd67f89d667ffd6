"""Where a build works (memory if there is plenty, else a folder of the cache), and how trees are layered."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from iceshelves.core.errors import Failed
from iceshelves.images.build import kernel
from iceshelves.images.build.commands import Say, stream

_SPARE: Final = 1024**3
_CLEAN: Final = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


@dataclass(frozen=True)
class Scratch:
    """A folder that ends with the build; ``name`` is in the name of everything unfinished elsewhere."""

    folder: Path
    name: str

    def new(self, name: str) -> Path:
        """A new folder in it."""
        made = self.folder / name
        made.mkdir()
        return made

    def layered(self, base: Path, say: Say) -> Path:
        """A tree that begins as ``base``, and may be changed without changing that; a mount of its own."""
        lower, tree = self.new("lower"), self.new("tree")
        kernel.mount(str(base), lower, flags=kernel.BIND)
        try:
            self._overlay(tree)
        except OSError as error:
            say(f"no overlay here ({error.strerror}): the base is copied")
            copy_tree(lower, tree, say)
            kernel.mount(str(tree), tree, flags=kernel.BIND)
            kernel.mount("", tree, flags=kernel.BIND | kernel.REMOUNT | kernel.NO_SET_ID | kernel.NO_DEVICES)
        return tree

    def _overlay(self, tree: Path) -> None:
        upper = self.new("upper")
        self.new("work")
        os.chdir(self.folder)  # relative paths: these options have no way to quote a comma or colon
        options = f"lowerdir=lower,upperdir=upper,workdir=work{_where_notes_are_kept(upper)}"
        kernel.mount("overlay", tree, "overlay", kernel.NO_SET_ID | kernel.NO_DEVICES, options)


def _where_notes_are_kept(upper: Path) -> str:
    """The option for the extended attributes in which overlayfs takes its notes.

    In a user namespace those are not the usual ones.  Without any it mounts all the same, and later refuses
    to rename folders; so each is tried first.  Raises ``OSError`` where neither can be used.
    """
    try:
        os.setxattr(upper, "trusted.probe", b"")
    except PermissionError:
        os.setxattr(upper, "user.probe", b"")
        return ",userxattr"
    return ""


def scratch_in(folder: Path, name: str, size: int, say: Say) -> Scratch:
    """Scratch space of ``size`` bytes at ``folder``: a file system in memory where that much is free.

    Raises :class:`Failed` (``disk_full``).
    """
    if _free_memory() >= size + _SPARE:
        kernel.mount("none", folder, "tmpfs", kernel.NO_DEVICES, f"size={size},mode=700")
        return Scratch(folder, name)
    say("little free memory: building on disk, which is slower")
    free = os.statvfs(folder)
    if free.f_bavail * free.f_frsize < size // 4:
        raise Failed(
            f"There is too little space for a build in {folder.parent}.",
            code="disk_full",
            hint="Free some, or give the build a lower limit.",
        )
    return Scratch(folder, name)


def copy_tree(source: Path, target: Path, say: Say) -> None:
    """Copy a tree with everything that belongs to it; blocks are shared where the file system can."""
    stream(["cp", "-a", "--reflink=auto", f"{source}/.", str(target)], say, env=_CLEAN)


def unpacked_size(tree: Path) -> int:
    """Bytes of the files in ``tree``, each inode counted once."""
    sizes: dict[tuple[int, int], int] = {}
    for _, _, files, descriptor in os.fwalk(tree, follow_symlinks=False):
        for name in files:
            found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            sizes[found.st_dev, found.st_ino] = found.st_size
    return sum(sizes.values())


def _free_memory() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0
