"""The lock of a build: every package with its exact version and hash, and the moment that the image claims.

Two builds of one lock give one image.  A lock names no mirror: a package is known by its hash, and where it
lies below any mirror of its distribution by its ``filename``.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from iceshelves.core.bounded import load_json
from iceshelves.core.decode import decode
from iceshelves.core.errors import InvalidInput

FORMAT: Final = 1
LOCK: Final = "appliance.lock"
MAX_BYTES: Final = 8 * 1024 * 1024
MAX_NODES: Final = 200_000

_HASH: Final = re.compile(r"[0-9a-f]{64}")
# Debian policy 5.6.7 and 5.6.12
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9+.-]{1,127}")
_VERSION: Final = re.compile(r"[0-9][A-Za-z0-9.+~:-]{0,127}")
_ARCHITECTURE: Final = re.compile(r"[a-z0-9]{2,16}")
_FILENAME: Final = re.compile(
    r"(?:[A-Za-z0-9+~_][A-Za-z0-9+.~:%_-]*/){0,8}[A-Za-z0-9][A-Za-z0-9+.~:%_-]*\.deb"
)


@dataclass(frozen=True, slots=True)
class Package:
    """One binary package.  ``architecture`` is ``all`` or the machine's; ``size`` in bytes."""

    name: str
    version: str
    architecture: str
    sha256: str
    size: int
    filename: str

    @property
    def pinned(self) -> str:
        """The package as apt is told to install it."""
        return f"{self.name}={self.version}"


@dataclass(frozen=True)
class Lock:
    """``base`` is what all appliances of a release share, ``packages`` what this one adds.

    ``epoch`` is the time, in seconds, that the image's files and metadata give; ``recipe`` the recipe's
    digest; ``builder`` that of what this version of the builder adds to every image.
    """

    appliance: str
    recipe: str
    builder: str
    epoch: int
    distribution: str
    release: str
    architecture: str
    base: tuple[Package, ...]
    packages: tuple[Package, ...]
    format: int = FORMAT

    def everything(self) -> tuple[Package, ...]:
        """All packages of the image."""
        return (*self.base, *self.packages)

    def versions(self) -> dict[str, str]:
        """The version of each package by its name."""
        return {package.name: package.version for package in self.everything()}


def parse_lock(text: str | bytes, source: str) -> Lock:
    """The lock in ``text``, which ``source`` names in errors.  Raises :class:`InvalidInput`."""
    value: Any = load_json(text, source=source, max_bytes=MAX_BYTES, max_nodes=MAX_NODES)
    try:
        lock = decode(Lock, value)
    except ValueError as error:
        raise _invalid(source, str(error)) from error
    if lock.format != FORMAT:
        raise _invalid(source, f"its format is {lock.format}, and this version knows {FORMAT}")
    if not 0 < lock.epoch < 2**32:
        raise _invalid(source, "its epoch is no time that a squashfs can hold")
    for package in lock.everything():
        _check(package, lock.architecture, source)
    names = [package.name for package in lock.everything()]
    if len(set(names)) != len(names):
        raise _invalid(source, "it names a package twice")
    return lock


def render_lock(lock: Lock) -> str:
    """The lock as JSON with one package a line: made to be kept in Git and read in a diff."""
    document = dataclasses.asdict(lock)
    base, packages = (_lines(document.pop(part)) for part in ("base", "packages"))
    head = json.dumps(document, indent=1, sort_keys=True).removesuffix("\n}")
    return f'{head},\n "base": {base},\n "packages": {packages}\n}}\n'


def render_packages(packages: Iterable[Package]) -> str:
    """Packages as JSON, for our own keeping."""
    return json.dumps([dataclasses.asdict(package) for package in packages])


def parse_packages(text: str | bytes) -> tuple[Package, ...]:
    """What :func:`render_packages` wrote."""
    return tuple(Package(**each) for each in json.loads(text))


def same_content(one: Lock, other: Lock) -> bool:
    """Whether both give the same image but for the time that it claims."""
    return dataclasses.replace(one, epoch=other.epoch) == other


def sorted_packages(packages: Iterable[Package]) -> tuple[Package, ...]:
    """By name, as a lock has them."""
    return tuple(sorted(packages, key=lambda package: package.name))


def _lines(packages: list[dict[str, Any]]) -> str:
    if not packages:
        return "[]"
    return "[\n  " + ",\n  ".join(json.dumps(package, sort_keys=True) for package in packages) + "\n ]"


def _check(package: Package, architecture: str, source: str) -> None:
    matches = (
        _NAME.fullmatch(package.name)
        and _VERSION.fullmatch(package.version)
        and _ARCHITECTURE.fullmatch(package.architecture)
        and _HASH.fullmatch(package.sha256)
        and _FILENAME.fullmatch(package.filename)
        and package.size > 0
    )
    if not matches or package.architecture not in ("all", architecture):
        raise _invalid(source, f"its entry for {package.name[:100]!r} is damaged")


def _invalid(source: str, what: str) -> InvalidInput:
    return InvalidInput(
        f"{source} cannot be used: {what}.",
        code="invalid_lock",
        hint="Delete it and build again; that makes a new one.",
        details={"file": source},
    )
