"""Where packages come from: the mirrors that a build uses, and those that an image is given.

They are not the same.  A build uses what the operator says, or what this machine's own apt uses, proxy and
all; nothing of that is written into an image or a lock.  An image gets the distribution's official addresses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from iceshelves.core.errors import InvalidInput
from iceshelves.core.process import run
from iceshelves.images.build.job import Source, check_source

_SECONDS: Final = 60.0
_KEYRINGS: Final = {
    "debian": ("debian-archive-keyring.gpg", "debian-archive-keyring.pgp"),
    "ubuntu": ("ubuntu-archive-keyring.gpg",),
}
_FORMAT: Final = "$(RELEASE) $(COMPONENT) $(REPO_URI)"
# How this machine reaches its mirrors: proxy, time-outs, authorities, frozen mirrors.
_SETTINGS: Final = re.compile(
    r"Acquire::(?:https?::(?:Proxy(?!-Auto)|Timeout|Verify|CaInfo)|Check-Valid-Until|Check-Date|Retries)"
    r'[A-Za-z0-9:.-]* "[^"\n]*";'
)
_ENVIRONMENT: Final = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


@dataclass(frozen=True, slots=True)
class Distribution:
    """What is the same for all releases of a distribution.

    ``official`` are the addresses for the release itself and its security updates; where ``ports`` is set,
    architectures other than amd64 are found there.
    """

    name: str
    title: str
    official: str
    security: str
    ports: str | None = None


DISTRIBUTIONS: Final = {
    "debian": Distribution(
        "debian", "Debian", "http://deb.debian.org/debian", "http://deb.debian.org/debian-security"
    ),
    "ubuntu": Distribution(
        "ubuntu",
        "Ubuntu",
        "http://archive.ubuntu.com/ubuntu",
        "http://security.ubuntu.com/ubuntu",
        "http://ports.ubuntu.com/ubuntu-ports",
    ),
}
_COMPONENTS: Final = {"debian": ("main",), "ubuntu": ("main", "universe")}


def official_sources(distribution: str, release: str, architecture: str) -> tuple[Source, ...]:
    """The distribution's own repositories of a release, its updates and its security updates."""
    facts = DISTRIBUTIONS[distribution]
    main, security = facts.official, facts.security
    if facts.ports and architecture != "amd64":
        main = security = facts.ports
    return _three(main, security, release, distribution, None)


def machine_sources(distribution: str, release: str, architecture: str) -> tuple[Source, ...]:
    """The same from the mirrors that this machine's apt uses, the official ones where it uses none."""
    official = official_sources(distribution, release, architecture)
    uris = _machine_uris()
    main = uris.get(release) or _sibling(uris, official[0].uri)
    security = uris.get(f"{release}-security") or _sibling(uris, official[2].uri)
    return _three(
        main or official[0].uri, security or official[2].uri, release, distribution, keyring(distribution)
    )


def machine_settings() -> str:
    """How this machine's apt reaches its mirrors, as lines of apt.conf."""
    dump = run(["apt-config", "dump", "--no-empty"], timeout=_SECONDS, env=_ENVIRONMENT).checked()
    lines = dump.stdout.decode(errors="replace").splitlines()
    return "".join(f"{line}\n" for line in lines if _SETTINGS.fullmatch(line))


def keyring(distribution: str) -> str:
    """The file with the distribution's archive keys.  Raises :class:`InvalidInput` (``keyring_missing``)."""
    for name in _KEYRINGS[distribution]:
        path = Path("/usr/share/keyrings") / name
        if path.exists():
            return str(path)
    package = (
        _KEYRINGS[distribution][0].removesuffix(".gpg").replace("ubuntu-archive-keyring", "ubuntu-keyring")
    )
    raise InvalidInput(
        f"The keys that sign {DISTRIBUTIONS[distribution].title}'s packages are not on this machine.",
        code="keyring_missing",
        hint=f"Install the package {package}, or name a keyring in the build's sources.",
    )


def sources_list(sources: tuple[Source, ...]) -> str:
    """The lines of a sources.list, each source having been checked."""
    return "".join(_line(check_source(source)) for source in sources)


def _line(source: Source) -> str:
    signed = f"[signed-by={source.keyring}] " if source.keyring else ""
    return f"deb {signed}{source.uri} {source.suite} {' '.join(source.components)}\n"


def _three(
    main: str, security: str, release: str, distribution: str, signed_by: str | None
) -> tuple[Source, ...]:
    components = _COMPONENTS[distribution]
    return (
        Source(main.rstrip("/"), release, components, signed_by),
        Source(main.rstrip("/"), f"{release}-updates", components, signed_by),
        Source(security.rstrip("/"), f"{release}-security", components, signed_by),
    )


def _machine_uris() -> dict[str, str]:
    """The first address of each suite in this machine's sources, in either of apt's formats."""
    listed = run(
        ["apt-get", "indextargets", "--format", _FORMAT, "Created-By: Packages"],
        timeout=_SECONDS,
        env=_ENVIRONMENT,
    ).checked()
    found: dict[str, str] = {}
    for suite, component, uri in _fields(listed.stdout.decode(errors="replace")):
        if component == "main":
            found.setdefault(suite, uri.rstrip("/"))
    return found


def _fields(text: str) -> Iterator[tuple[str, str, str]]:
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3:
            yield words[0], words[1], words[2]


def _sibling(uris: dict[str, str], official: str) -> str | None:
    """A mirror that has other releases of the same archive: the last part of its path is the same."""
    archive = official.rstrip("/").rsplit("/", 1)[-1]
    return next((uri for uri in uris.values() if uri.rsplit("/", 1)[-1] == archive), None)
