"""Namespaces of its own for a build: mounts, processes, host name and System V objects.

Root gets them as root.  Anybody else gets a user namespace first, with the subordinate ids of
``/etc/subuid`` and ``/etc/subgid`` (newuidmap, package uidmap), in which they are root; from there on
everything is the same.  When the first process ends, however it does, all others of the namespace do, and
the mounts are gone.
"""

from __future__ import annotations

import getpass
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from iceshelves.core.process import run

_TOOLS: Final = {
    "unshare": "util-linux", "mmdebstrap": "mmdebstrap", "apt-get": "apt", "dpkg-deb": "dpkg",
}  # fmt: skip
_SECONDS: Final = 20.0
_IDS: Final = 65536

#: all that a build is given of its parent's environment
ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "HOME": "/nonexistent",
}


def isolated(argv: Sequence[str]) -> list[str]:
    """``argv`` as the first process of new namespaces; it is killed when the process that waits for it is."""
    command = ["unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc"]
    if os.geteuid() != 0:
        command += ["--map-root-user", "--map-auto"]
    return [*command, "--", *argv]


def missing() -> str | None:
    """What this machine or user lacks for building, and how to get it; None when nothing is lacking."""
    path = ENVIRONMENT["PATH"]
    lacking = sorted({package for tool, package in _TOOLS.items() if shutil.which(tool, path=path) is None})
    if lacking:
        return f"not installed: {', '.join(lacking)}"
    if os.geteuid() != 0:
        if shutil.which("newuidmap", path=path) is None:
            return "not installed: uidmap"
        if not all(_has_ids(Path("/etc") / name) for name in ("subuid", "subgid")):
            return f"{getpass.getuser()} has no {_IDS} subordinate ids (usermod --add-subuids, --add-subgids)"
    done = run(isolated(["true"]), timeout=_SECONDS, env=ENVIRONMENT)
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        return f"the kernel refuses new namespaces ({said[-1]})"
    return None


def _has_ids(path: Path) -> bool:
    names = {getpass.getuser(), str(os.geteuid())}
    try:
        entries = [line.split(":") for line in path.read_text().splitlines()]
    except OSError:
        return False
    return any(
        len(entry) == 3 and entry[0] in names and entry[2].isdigit() and int(entry[2]) >= _IDS
        for entry in entries
    )
