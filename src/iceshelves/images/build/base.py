"""The base of an image: the distribution with systemd and, mostly, cloud-init; made once and kept.

Twelve appliances on one release share one base.  It is known by the packages in it, so a lock and a later
build meet at the same one; its files claim the time of its newest package, never that of its making.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from iceshelves.images.build import kernel, system
from iceshelves.images.build.commands import Say, stream
from iceshelves.images.build.debs import Debs, newest
from iceshelves.images.build.jail import Jail, furnished, show
from iceshelves.images.build.lock import Lock, Package
from iceshelves.images.build.normalise import normalise
from iceshelves.images.build.scratch import Scratch, copy_tree, unpacked_size
from iceshelves.images.build.sources import official_sources

#: mmdebstrap's own: /bin and its like become links before anything is unpacked, where a release has it so
_MERGED: Final = "/usr/share/mmdebstrap/hooks/maybe-merged-usr"
_ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "HOME": "/nonexistent",
}


#: what the name of a base's lock file ends with; the file holds the base's size in bytes
LOCKED: Final = ".lock"


@dataclass(frozen=True)
class Base:
    """What a base is made of, and where bases and packages are kept."""

    lock: Lock
    cloud_init: bool
    debs: Debs
    folder: Path

    @property
    def key(self) -> str:
        """The name of this base; another for everything that would make another tree."""
        lock = self.lock
        facts = [system.REVISION, lock.distribution, lock.release, lock.architecture, self.cloud_init]
        hashes = sorted(package.sha256 for package in lock.base)
        return hashlib.sha256(json.dumps([facts, hashes]).encode()).hexdigest()[:32]

    @contextmanager
    def tree(self, scratch: Scratch, say: Say) -> Iterator[Path]:
        """The tree, made now or found in the cache; nobody removes it meanwhile.  It must not be changed."""
        # a base holds programs that run as root for whoever starts them; nobody else is to get there
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        kept = self.folder / self.key
        with (self.folder / f"{self.key}{LOCKED}").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            if not kept.exists():
                fcntl.flock(lock, fcntl.LOCK_EX)  # another builder may be at it, and done when we get it
                if not kept.exists():
                    self._make(kept, scratch, say)
                    lock.truncate(0)
                    lock.write(str(unpacked_size(kept)))
                    lock.flush()
                fcntl.flock(lock, fcntl.LOCK_SH)
            os.utime(lock.fileno())  # the least recently used goes first
            yield kept

    def _make(self, kept: Path, scratch: Scratch, say: Say) -> None:
        say(f"no base of {len(self.lock.base)} packages in the cache: making it")
        tree = scratch.new("base")
        epoch = newest(self.debs.path(package) for package in self.lock.base)
        kernel.mount(str(tree), tree, flags=kernel.BIND)
        self._bootstrap(tree, scratch, epoch, say)
        sources = official_sources(self.lock.distribution, self.lock.release, self.lock.architecture)
        with furnished(tree, epoch, {}) as jail:
            jail.call(lambda: system.configure(Path("/"), sources, self.cloud_init))
            jail.run(["systemctl", "--quiet", "enable", *system.ENABLED], say)
            jail.run(["systemctl", "--quiet", "mask", *system.MASKED], say)
        Jail(tree, epoch).call(lambda: normalise(Path("/"), epoch))
        clamp(tree, epoch)
        partial = self.folder / f".{self.key}.{scratch.name}"
        partial.mkdir()
        copy_tree(tree, partial, say)
        os.sync()
        partial.rename(kept)
        kernel.unmount(tree)
        shutil.rmtree(tree)

    def _bootstrap(self, tree: Path, scratch: Scratch, epoch: int, say: Say) -> None:
        repository = scratch.new("base-repository")
        show_repository(self.debs, self.lock.base, self.lock.release, repository)
        argv = [
            "mmdebstrap", "--quiet", "--mode=root", "--variant=essential", "--format=directory",
            "--skip=output/dev,check/qemu",
            f"--hook-dir={_MERGED}",
            f"--architectures={self.lock.architecture}",
            f"--include={','.join(package.pinned for package in self.lock.base)}",
            '--aptopt=APT::Install-Recommends "false"',
            "--dpkgopt=force-unsafe-io",
            self.lock.release,
            str(tree),
            f"deb [trusted=yes] copy:{repository} ./",
        ]  # fmt: skip
        environment = {**_ENVIRONMENT, "SOURCE_DATE_EPOCH": str(epoch), "TMPDIR": str(scratch.folder)}
        stream(argv, say, env=environment, within=lambda: kernel.leave(kernel.NEW_NETWORK))


def show_repository(debs: Debs, packages: tuple[Package, ...], suite: str, folder: Path) -> None:
    """Make ``folder`` a repository of exactly these packages."""
    debs.repository(packages, suite, folder)
    show(debs.folder, folder / "debs")


def clamp(tree: Path, epoch: int) -> None:
    """Set every time in ``tree`` that is later than ``epoch`` to it."""
    for _folder, folders, files, descriptor in os.fwalk(tree, topdown=False, follow_symlinks=False):
        for name in (*folders, *files, "."):
            now = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            if now.st_mtime > epoch:
                os.utime(name, (epoch, epoch), dir_fd=descriptor, follow_symlinks=False)
