"""Images for tests, built from the distribution's packages once and cached.

The cache is ``$XDG_CACHE_HOME/iceshelves-tests`` (default ``~/.cache``); what is in it is named after a
hash of the scripts that made it, so a changed script makes a new image and an unchanged one never does.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from testbed.hosts import TestbedError

ROOT: Final = Path(__file__).parents[2]
_SHARED: Final = [ROOT / "scripts/lib/apt.sh", ROOT / "scripts/lib/image-metadata.sh"]
TINY_SCRIPT: Final = ROOT / "tests/testbed/tiny-image"
DEBIAN_SCRIPT: Final = ROOT / "scripts/cloud-image"


def missing_for_tiny() -> str | None:
    """What building the tiny image needs and this machine lacks."""
    return _missing("busybox", "mksquashfs", "xz")


def missing_for_debian() -> str | None:
    """What building the Debian image needs and this machine lacks."""
    return _missing("mmdebstrap", "mksquashfs", "xz")


def tiny_files() -> tuple[Path, Path]:
    """Metadata and root file system of a system that starts in 0.3 s and imitates cloud-init."""
    folder = _built([str(TINY_SCRIPT)], TINY_SCRIPT)
    return folder / "tiny-meta.tar.xz", folder / "tiny.squashfs"


def plain_files() -> tuple[Path, Path]:
    """The same system without any cloud-init."""
    folder = _built([str(TINY_SCRIPT)], TINY_SCRIPT)
    return folder / "plain-meta.tar.xz", folder / "plain.squashfs"


def debian_files(suite: str) -> tuple[Path, Path]:
    """Metadata and root file system of a Debian with the real cloud-init; ``suite`` is its code name."""
    folder = _built([str(DEBIAN_SCRIPT), suite], DEBIAN_SCRIPT)
    return folder / f"{suite}-meta.tar.xz", folder / f"{suite}.squashfs"


def own_suite() -> tuple[str, str]:
    """Code name and version of this machine's Debian, as in ``("bookworm", "12")``."""
    facts = dict(
        line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line
    )
    return facts.get("VERSION_CODENAME", "").strip('"'), facts.get("VERSION_ID", "").strip('"')


def _missing(*tools: str) -> str | None:
    absent = [tool for tool in tools if not shutil.which(tool)]
    return "not installed: " + ", ".join(absent) if absent else None


def _built(command: list[str], script: Path) -> Path:
    """The folder with what ``command FOLDER`` makes; test processes that want the same one build it once."""
    content = hashlib.sha256(repr(command[1:]).encode())
    for source in (script, *_SHARED):
        content.update(source.read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "iceshelves-tests"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"{script.name}-{'-'.join([*command[1:], content.hexdigest()[:12]])}"
    with (cache / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            unfinished = folder.with_suffix(".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            done = subprocess.run([*command, str(unfinished)], capture_output=True, text=True)
            if done.returncode:
                raise TestbedError(f"{script.name} failed: {done.stderr.strip()[-2000:]}")
            unfinished.rename(folder)
    return folder
