"""Whether this machine can run another architecture's programs, which package scripts are.

An emulator (qemu-user-static) that is registered with the kernel's binfmt_misc runs them like any other.
"""

from __future__ import annotations

import contextlib
import platform
from pathlib import Path
from typing import Final

from iceshelves.images.build import kernel
from iceshelves.images.build.describing import ARCHITECTURES

_REGISTRY: Final = Path("/proc/sys/fs/binfmt_misc")
_HANDLERS: Final = {"arm64": "qemu-aarch64", "amd64": "qemu-x86_64"}


def runs_here(architecture: str) -> bool:
    """Whether programs for ``architecture`` (Debian's name) run; called in the build's own mounts."""
    if architecture not in ARCHITECTURES:
        return False
    if ARCHITECTURES[architecture] == platform.machine():
        return True
    handler = _REGISTRY / _HANDLERS[architecture]
    if not _REGISTRY.joinpath("status").exists():
        with contextlib.suppress(OSError):  # this /proc is new and has it only once it is mounted
            kernel.mount("none", _REGISTRY, "binfmt_misc")
    try:
        # F: the kernel holds the emulator open, so that it need not be in the tree
        lines = handler.read_text().splitlines()
    except OSError:
        return False
    return "enabled" in lines and any(line.startswith("flags:") and "F" in line for line in lines)
