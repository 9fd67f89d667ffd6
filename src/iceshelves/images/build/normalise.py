"""Removing from a tree what two builds, or two instances, must not share or would not agree on.

Runs with the tree as root and nothing mounted in it.  What is removed is either a trace of the build (logs,
caches, lock files, back-up copies) or something that each instance makes for itself (machine-id, host keys,
random seeds).  Times are clamped when the tree is packed.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from iceshelves.images.build import system

#: everything below these goes, the folders themselves stay
_EMPTIED: Final = (
    "run", "tmp", "var/tmp", "dev", "proc", "sys", "var/lib/apt/lists", "var/cache/apt", "var/cache/man",
    "var/cache/ldconfig", "var/lib/cloud", "usr/share/man", "usr/share/info", "usr/share/locale",
    "root/.cache",
    "var/lib/systemd/timers", "var/lib/dhcp", "var/lib/systemd/coredump",
)  # fmt: skip
_REMOVED: Final = (
    system.POLICY,
    "etc/hostname",
    "etc/.pwd.lock",
    "etc/mailname",
    "etc/apt/apt.conf.d/99mmdebstrap",
    "etc/ssh/ssh_host_*",
    "root/.bash_history",
    "root/.wget-hsts",
    "root/.viminfo",
    "root/.lesshst",
    "var/lib/dbus/machine-id",
    "var/lib/systemd/random-seed",
    "var/lib/systemd/credential.secret",
    "var/lib/urandom/random-seed",
    "var/lib/dpkg/*-old",
    "var/lib/dpkg/lock*",
    "var/lib/dpkg/triggers/Lock",
    "var/lib/apt/daily_lock",
    "var/lib/ucf/cache/*:*",
    "var/lib/ucf/*.[0-9]",
    "var/cache/debconf/*-old",
    "var/cache/debconf/passwords.dat",
)
#: shadow(5) keeps a copy of each of these beside it
_ACCOUNTS: Final = ("passwd", "group", "shadow", "gshadow", "subuid", "subgid")
_DAY: Final = 86400


def normalise(root: Path, epoch: int) -> None:
    """Make the tree at ``root`` the same whenever and wherever it was built."""
    for name in _EMPTIED:
        _empty(root / name)
    for pattern in _REMOVED:
        for path in sorted(root.glob(pattern)):
            _remove(path)
    for name in _ACCOUNTS:
        (root / "etc" / f"{name}-").unlink(missing_ok=True)
    _remove_files(root / "var/log")
    _remove_compiled(root)
    _keep_only_copyright(root / "usr/share/doc")
    _same_day(root / "etc/shadow", epoch)
    # Empty, not absent: systemd then makes one at the first start and does not take it for the first boot
    # of an installer.
    system.write(root / "etc/machine-id", "")


def _empty(folder: Path) -> None:
    if folder.is_symlink() or not folder.is_dir():
        return
    for child in folder.iterdir():
        _remove(child)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """As ``os.walk``, which would follow ``folder`` itself."""
    if not folder.is_symlink():
        yield from os.walk(folder)


def _files(folder: Path) -> Iterator[Path]:
    for where, folders, files in _walk(folder):
        yield from (Path(where) / name for name in files)
        yield from (Path(where) / name for name in folders if (Path(where) / name).is_symlink())


def _remove_files(folder: Path) -> None:
    """Folders stay: daemons write to theirs and cannot make them."""
    for path in _files(folder):
        path.unlink()


def _remove_compiled(root: Path) -> None:
    """Python's compiled files hold what the compiler's memory looked like."""
    for top in ("usr", "etc", "opt", "var"):
        for where, folders, _ in _walk(root / top):
            if "__pycache__" in folders:
                folders.remove("__pycache__")
                _remove(Path(where) / "__pycache__")


def _keep_only_copyright(folder: Path) -> None:
    for path in _files(folder):
        if path.name != "copyright" and not path.is_symlink():
            path.unlink()


def _same_day(shadow: Path, epoch: int) -> None:
    """The day of the last change of each password, shadow(5), becomes that of ``epoch``."""
    if not shadow.is_file() or shadow.is_symlink():
        return
    kept = shadow.stat()
    day = str(epoch // _DAY)
    lines = []
    for line in shadow.read_text().splitlines():
        fields = line.split(":")
        if len(fields) > 2 and fields[2]:
            fields[2] = day
        lines.append(":".join(fields) + "\n")
    text = "".join(lines)
    shadow.write_text(text)
    shadow.chmod(stat.S_IMODE(kept.st_mode))
