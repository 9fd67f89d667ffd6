"""Deciding on packages: the distribution's own apt resolves, over signed lists, with nothing installed.

The lists are kept in the cache and brought up to date at each resolution; builders that use the same sources
take turns.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from iceshelves.core.errors import Failed, InvalidInput, Temporary
from iceshelves.core.process import Completed, run
from iceshelves.images.build.commands import Say, stream
from iceshelves.images.build.job import Source
from iceshelves.images.build.lock import Package, parse_packages, render_packages, sorted_packages
from iceshelves.images.build.sources import machine_settings, sources_list

_SECONDS: Final = 300.0
_MAX_LISTS: Final = 512 * 1024 * 1024
_INSTALLED: Final = re.compile(r"^Inst (\S+) \((\S+) ", re.MULTILINE)
_REQUIRED: Final = re.compile(r"^(?:Essential: yes|Priority: required)$", re.MULTILINE)
_PACKAGE: Final = re.compile(r"^Package: (\S+)$", re.MULTILINE)
_ENVIRONMENT: Final = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


@dataclass(frozen=True)
class Resolver:
    """An apt with nothing installed, for one architecture of one set of sources."""

    folder: Path
    architecture: str

    def base(self, wanted: Iterable[str]) -> tuple[Package, ...]:
        """What every Debian has (essential and required packages, and apt) with those of ``wanted`` that
        there are, and all that they depend on.  Raises like :meth:`resolve`.
        """
        names = sorted(wanted)
        return self._remembered(
            ["base", *names], lambda: self._resolve([*self._standard(), *self._known(names)])
        )

    def resolve(self, wanted: Iterable[str]) -> tuple[Package, ...]:
        """``wanted`` (names, or ``name=version``) with all that they depend on.

        Raises :class:`InvalidInput` (``packages_unresolvable``) with apt's reason.
        """
        names = sorted(wanted)
        return self._remembered(["these", *names], lambda: self._resolve(names))

    def _remembered(
        self, question: list[str], answer: Callable[[], tuple[Package, ...]]
    ) -> tuple[Package, ...]:
        """The same lists give the same answer, so it is kept until they change: appliances share a base."""
        kept = self._answers() / hashlib.sha256("\n".join(question).encode()).hexdigest()[:32]
        if kept.exists():
            return parse_packages(kept.read_bytes())
        packages = answer()
        kept.with_suffix(".new").write_text(render_packages(packages))
        kept.with_suffix(".new").rename(kept)
        return packages

    def _standard(self) -> tuple[str, ...]:
        listed = self._apt(["apt-cache", "dumpavail"]).stdout.decode(errors="replace")
        names = {"apt"}
        for record in listed.split("\n\n"):
            if _REQUIRED.search(record) and (found := _PACKAGE.search(record)):
                names.add(found[1])
        return tuple(sorted(names))

    def _known(self, names: list[str]) -> list[str]:
        told = self._apt(["apt-cache", "policy", *names]).stdout.decode(errors="replace")
        having = set(re.findall(r"^(\S+):\n  Installed: .*\n  Candidate: (?!\(none\))", told, re.MULTILINE))
        return [name for name in names if name in having]

    def _answers(self) -> Path:
        """The folder for answers by the present lists; those by earlier ones are gone."""
        lists = hashlib.sha256()
        for signed in sorted((self.folder / "lists").glob("*Release")):
            lists.update(signed.name.encode() + b"\0" + hashlib.sha256(signed.read_bytes()).digest())
        answers = self.folder / "answers" / lists.hexdigest()[:32]
        if not answers.exists():
            shutil.rmtree(answers.parent, ignore_errors=True)
            answers.mkdir(parents=True)
        return answers

    def _resolve(self, wanted: list[str]) -> tuple[Package, ...]:
        command = ["apt-get", "--simulate", "--no-install-recommends", "install", *wanted]
        simulated = run(command, timeout=_SECONDS, env=self._environment(), max_output=_MAX_LISTS)
        if simulated.returncode != 0:
            raise _unresolvable(simulated)
        chosen = _INSTALLED.findall(simulated.stdout.decode(errors="replace"))
        return sorted_packages(self._records([f"{name.split(':')[0]}={version}" for name, version in chosen]))

    def _records(self, pinned: list[str]) -> Iterator[Package]:
        shown = self._apt(["apt-cache", "show", *pinned]).stdout.decode(errors="replace")
        found: dict[str, Package] = {}
        for record in shown.split("\n\n"):
            fields = dict(
                line.split(": ", 1) for line in record.splitlines() if re.match(r"[A-Z]\S*: ", line)
            )
            if "SHA256" in fields:
                package = _package(fields)
                found.setdefault(package.pinned, package)
        missing = [each for each in pinned if each not in found]
        if missing:
            raise Failed(
                f"The package lists have no hash for {missing[0]}.",
                code="packages_unresolvable",
                hint="The mirror must publish SHA256 sums; Debian's and Ubuntu's do.",
            )
        return (found[each] for each in pinned)

    def _apt(self, command: list[str]) -> Completed:
        return run(command, timeout=_SECONDS, env=self._environment(), max_output=_MAX_LISTS).checked()

    def _environment(self) -> Mapping[str, str]:
        return apt_environment(self.folder)


@contextmanager
def resolver(cache: Path, sources: tuple[Source, ...], architecture: str, say: Say) -> Iterator[Resolver]:
    """A resolver with current lists, for as long as no other builder may change them.

    Raises :class:`Temporary` (``mirror_unavailable``) when the lists cannot be fetched or verified.
    """
    text = sources_list(sources)
    key = hashlib.sha256(f"{architecture}\n{text}".encode()).hexdigest()[:16]
    folder = cache / "lists" / key
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _configure(folder, architecture, text)
        try:
            stream(["apt-get", "-q", "update"], say, env=apt_environment(folder))
        except Failed as error:
            if error.code != "program_failed":
                raise
            raise Temporary(
                f"The package lists cannot be fetched: {error.message.split(': ', 1)[-1]}",
                code="mirror_unavailable",
                hint="Check the mirror in the build's sources, and that this machine reaches it.",
                details=error.details,
            ) from error
        os.utime(folder)
        yield Resolver(folder, architecture)


def apt_environment(folder: Path) -> dict[str, str]:
    """The environment for an apt that knows only what is configured in ``folder``."""
    return {**_ENVIRONMENT, "APT_CONFIG": str(folder / "apt.conf")}


def configure_fetching(folder: Path) -> None:
    """Make ``folder`` the home of an apt that only fetches, as this machine's apt would."""
    _configure(folder, "amd64", "")


def _configure(folder: Path, architecture: str, sources: str) -> None:
    for part in ("lists/partial", "archives/partial"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "status").touch()
    (folder / "sources.list").write_text(sources)
    settings = {
        "Dir::Etc::main": "/dev/null",
        "Dir::Etc::parts": "/dev/null",
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State": folder,
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": folder / "status",
        "Dir::State::extended_states": folder / "extended_states",
        "Dir::Cache": folder,
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Install-Recommends": "false",
        "Acquire::Languages": "none",
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
    }
    lines = "".join(f'{name} "{value}";\n' for name, value in settings.items())
    (folder / "apt.conf").write_text(lines + machine_settings())


def _package(fields: Mapping[str, str]) -> Package:
    return Package(
        fields["Package"],
        fields["Version"],
        fields["Architecture"],
        fields["SHA256"],
        int(fields["Size"]),
        fields["Filename"].removeprefix("./"),
    )


def _unresolvable(simulated: Completed) -> InvalidInput:
    said = simulated.stderr.decode(errors="replace") + simulated.stdout.decode(errors="replace")
    errors = [line.removeprefix("E: ") for line in said.splitlines() if line.startswith("E: ")]
    unmet = [line.strip() for line in said.splitlines() if " : " in line and "Depends" in line]
    reason = (unmet or errors or ["apt gave no reason"])[0]
    return InvalidInput(
        f"The packages cannot be installed together: {reason[:400]}",
        code="packages_unresolvable",
        hint="Check the names in the recipe's packages against its release: apt-cache policy NAME.",
        details={"apt": said.splitlines()[-20:]},
    )
