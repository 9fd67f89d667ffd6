"""The few system calls that a build needs and Python 3.11 has no functions for: mount(2), pivot_root(2) …"""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path
from typing import Final

NEW_MOUNTS: Final = 0x00020000  # CLONE_NEWNS
NEW_NETWORK: Final = 0x40000000  # CLONE_NEWNET

READ_ONLY: Final = 1
NO_SET_ID: Final = 2
NO_DEVICES: Final = 4
NO_PROGRAMS: Final = 8
REMOUNT: Final = 32
BIND: Final = 4096
RECURSIVE: Final = 16384

_DETACH: Final = 2
_DROP_FROM_BOUNDING_SET: Final = 24  # PR_CAPBSET_DROP
_SIGNAL_OF_PARENTS_DEATH: Final = 1  # PR_SET_PDEATHSIG
_LAST_CAPABILITY: Final = 63
_INVALID_ARGUMENT: Final = 22

# What package scripts need, by the numbers of capability.h: chown, dac_override, fowner, fsetid, kill,
# setgid, setuid, setpcap, net_bind_service, sys_chroot, audit_write, setfcap.  Not mknod, not sys_admin.
PACKAGE_CAPABILITIES: Final = frozenset({0, 1, 3, 4, 5, 6, 7, 8, 10, 18, 29, 31})

_libc = ctypes.CDLL(None, use_errno=True)


def leave(namespaces: int) -> None:
    """Give this process new namespaces of the given kinds, unshare(2).  Raises ``OSError``."""
    _checked(_libc.unshare(namespaces), "unshare")


def mount(source: str, target: Path, kind: str = "", flags: int = 0, options: str = "") -> None:
    """mount(2).  Raises ``OSError``."""
    result = _libc.mount(
        source.encode(), os.fsencode(target), kind.encode() or None, ctypes.c_ulong(flags), options.encode()
    )
    _checked(result, str(target))


def unmount(target: Path) -> None:
    """Take the mount at ``target`` away, with all below it, from what can be reached.  Raises ``OSError``."""
    _checked(_libc.umount2(os.fsencode(target), _DETACH), str(target))


def change_root(root: Path) -> None:
    """Make the mount at ``root`` this mount namespace's root; nothing of the old one can be reached then.

    The two dots are pivot_root(2)'s own way without a folder for the old root.  Raises ``OSError``.
    """
    os.chdir(root)
    _checked(_libc.pivot_root(b".", b"."), str(root))
    _checked(_libc.umount2(b".", _DETACH), str(root))
    os.chdir("/")


def keep_capabilities(kept: frozenset[int]) -> None:
    """Let no program that this process starts have another capability than these.  Raises ``OSError``."""
    for capability in range(_LAST_CAPABILITY + 1):
        if capability in kept:
            continue
        if _libc.prctl(_DROP_FROM_BOUNDING_SET, capability, 0, 0, 0) != 0:
            number = ctypes.get_errno()
            if number != _INVALID_ARGUMENT:  # this kernel knows no capability of that number
                raise OSError(number, os.strerror(number), "prctl")


def die_with_parent() -> None:
    """Have this process killed when its parent ends, prctl(2).  Raises ``OSError``."""
    _checked(_libc.prctl(_SIGNAL_OF_PARENTS_DEATH, signal.SIGKILL, 0, 0, 0), "prctl")


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
