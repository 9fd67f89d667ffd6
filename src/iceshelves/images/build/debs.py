"""Packages by their content: fetched once, shared by all builds, and shown to apt as a local repository.

After this, nothing of a build needs a network: base and appliance are installed from what the lock names and
from nothing else, whether the lock was made a second or a year ago.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from iceshelves.core.errors import Failed, NotFound
from iceshelves.core.process import run
from iceshelves.images.build.commands import Say
from iceshelves.images.build.job import Source
from iceshelves.images.build.lock import Package
from iceshelves.images.build.resolving import apt_environment, configure_fetching

_HELPER: Final = "/usr/lib/apt/apt-helper"
_SECONDS: Final = 1800.0
_BATCH: Final = 100
_SHOWN: Final = 5
_NEVER: Final = "Thu, 01 Jan 1970 00:00:00 UTC"
_CLEAN: Final = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


@dataclass(frozen=True)
class Debs:
    """The packages in ``folder``, named by their SHA-256; what is unfinished has ``draft`` in its name."""

    folder: Path
    draft: str

    def path(self, package: Package) -> Path:
        """Where the package is, if it is there."""
        return self.folder / package.sha256[:2] / f"{package.sha256}.deb"

    def lacks(self, packages: Iterable[Package]) -> list[Package]:
        """Those that are not there, or not whole."""
        return [each for each in packages if not self._has(each)]

    def fetch(self, packages: Sequence[Package], sources: tuple[Source, ...], say: Say) -> None:
        """Get what is lacking from the first of the mirrors that has it; hashes decide, not mirrors.

        Raises :class:`NotFound` (``packages_gone``) naming what none of them has.
        """
        lacking = self.lacks(packages)
        if lacking:
            say(f"fetching {len(lacking)} packages, {sum(each.size for each in lacking) / 1e6:.1f} MB")
        for uri in dict.fromkeys(source.uri for source in sources):
            if not lacking:
                break
            self._fetch_from(uri, lacking)
            lacking = self.lacks(lacking)
        if lacking:
            raise _gone(lacking)
        for package in packages:
            os.utime(self.path(package))

    def control(self, package: Package) -> str:
        """The package's control fields, read from it once."""
        kept = self.path(package).with_suffix(".control")
        if not kept.exists():
            read = run(["dpkg-deb", "--field", str(self.path(package))], timeout=60.0, env=_CLEAN).checked()
            _replace(kept, read.stdout)
        return kept.read_text()

    def repository(self, packages: Iterable[Package], suite: str, folder: Path) -> None:
        """Write the index of a repository into ``folder``, for :attr:`folder` mounted at ``debs`` in it."""
        records = []
        for package in packages:
            fields = self.control(package).rstrip("\n")
            place = self.path(package).relative_to(self.folder)
            records.append(
                f"{fields}\nFilename: ./debs/{place}\nSize: {package.size}\nSHA256: {package.sha256}\n"
            )
        index = "\n".join(records).encode()
        (folder / "Packages").write_bytes(index)
        digest = hashlib.sha256(index).hexdigest()
        # mmdebstrap asks for the essential packages of this very suite
        (folder / "Release").write_text(
            f"Suite: {suite}\nCodename: {suite}\nDate: {_NEVER}\nSHA256:\n {digest} {len(index)} Packages\n"
        )

    def _has(self, package: Package) -> bool:
        try:
            with self.path(package).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == package.sha256
        except FileNotFoundError:
            return False

    def _fetch_from(self, uri: str, packages: list[Package]) -> None:
        # apt's own fetcher knows this machine's proxies and authorities, and fetches side by side
        scratch = self.folder / f".fetching-{self.draft}"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        configure_fetching(scratch)
        address = uri.replace("file:", "copy:", 1) if uri.startswith("file:") else uri
        for start in range(0, len(packages), _BATCH):
            batch = packages[start : start + _BATCH]
            argv = [_HELPER, "download-file"]
            for package in batch:
                argv += [
                    f"{address}/{package.filename}",
                    str(scratch / package.sha256),
                    f"SHA256:{package.sha256}",
                ]
            run(
                argv, timeout=_SECONDS, env=apt_environment(scratch)
            )  # what it lacks, the next mirror may have
            for package in batch:
                self._keep(scratch / package.sha256, package)
        shutil.rmtree(scratch)

    def _keep(self, fetched: Path, package: Package) -> None:
        if not fetched.is_file():
            return
        with fetched.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found == package.sha256:
            target = self.path(package)
            target.parent.mkdir(exist_ok=True)
            fetched.rename(target)


def newest(packages: Iterable[Path]) -> int:
    """When the newest of these packages was made, in seconds: the time in each one's archive header."""
    return max(_made(path) for path in packages)


def _made(path: Path) -> int:
    """deb(5): an ar archive; its first member's header follows 8 bytes, with the time at 16, 12 digits."""
    with path.open("rb") as file:
        header = file.read(36)
    try:
        if not header.startswith(b"!<arch>\ndebian-binary"):
            raise ValueError("no package")
        return int(header[24:36])
    except ValueError as error:
        raise Failed(f"The package {path.name} is damaged.", code="package_damaged") from error


def _gone(packages: list[Package]) -> NotFound:
    names = ", ".join(each.pinned for each in packages[:_SHOWN])
    more = f" and {len(packages) - _SHOWN} more" if len(packages) > _SHOWN else ""
    return NotFound(
        f"No mirror has {names}{more} any more.",
        code="packages_gone",
        hint="Build without the lock to make a new one, or name a snapshot mirror in the sources.",
        details={"packages": [each.pinned for each in packages]},
    )


def _replace(path: Path, content: bytes) -> None:
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    beside.write_bytes(content)
    beside.replace(path)
