"""Installing an appliance's packages into its tree: the tree's own apt, offline, from what the lock names."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from iceshelves.core.errors import Failed
from iceshelves.images.build import system
from iceshelves.images.build.base import show_repository
from iceshelves.images.build.commands import Say
from iceshelves.images.build.debs import Debs
from iceshelves.images.build.jail import Jail, furnished
from iceshelves.images.build.lock import Lock
from iceshelves.images.build.scratch import Scratch

_REPOSITORY: Final = "/run/build/repository"
_STATE: Final = "/run/apt"
_SOURCES: Final = "sources.list"
_OPTIONS: Final = {
    "Dir::Etc::sourcelist": f"{_REPOSITORY}/{_SOURCES}",
    "Dir::Etc::sourceparts": "/dev/null",
    "Dir::State::lists": f"{_STATE}/lists",
    "Dir::Cache": f"{_STATE}/cache",
    "Dir::Log": f"{_STATE}/log",
    "APT::Sandbox::User": "root",  # everything here is local, and of the build
    "APT::Install-Recommends": "false",
    "Acquire::Languages": "none",
    "DPkg::Use-Pty": "false",
    "DPkg::Options::": "--force-unsafe-io",
}


def install(tree: Path, lock: Lock, wanted: Iterable[str], debs: Debs, scratch: Scratch, say: Say) -> None:
    """Install the lock's packages; those not in ``wanted`` count as there for others.

    Raises :class:`Failed` (``program_failed``; ``lock_broken``: the tree has other packages than the lock).
    """
    repository = scratch.new("repository")
    show_repository(debs, lock.packages, lock.release, repository)
    (repository / _SOURCES).write_text(f"deb [trusted=yes] file:{_REPOSITORY} ./\n")
    with furnished(tree, lock.epoch, {"repository": repository}) as jail:
        jail.call(lambda: _prepare(Path("/")))
        if lock.packages:
            options = [f"-o{name}={value}" for name, value in _OPTIONS.items()]
            jail.run(["apt-get", "-qq", *options, "update"], say)
            pinned = [package.pinned for package in lock.packages]
            jail.run(["apt-get", "-qq", *options, "--yes", "install", *pinned], say)
            asked = set(wanted)
            implied = [package.name for package in lock.packages if package.name not in asked]
            if implied:
                jail.run(["apt-mark", "-qq", *options, "auto", *implied], say)
        _compare(_installed(jail), lock.versions())


def _prepare(root: Path) -> None:
    for name in ("lists/partial", "cache/archives/partial", "log"):
        (root / _STATE.lstrip("/") / name).mkdir(parents=True)
    system.forbid_starting(root)


def _installed(jail: Jail) -> dict[str, str]:
    lines: list[str] = []
    jail.run(
        ["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Package} ${Version}\\n"], lines.append
    )
    entries = [line.split() for line in lines]
    return {entry[1]: entry[2] for entry in entries if len(entry) == 3 and entry[0] == "installed"}


def _compare(found: dict[str, str], locked: dict[str, str]) -> None:
    if found == locked:
        return
    names = sorted(name for name in found.keys() | locked.keys() if found.get(name) != locked.get(name))
    raise Failed(
        f"The image did not get the packages of its lock: {', '.join(names[:5])}.",
        code="lock_broken",
        hint="Build without the lock to make a new one.",
        details={"packages": names},
    )
