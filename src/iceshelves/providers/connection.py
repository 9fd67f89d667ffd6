"""How a hypervisor system is reached.  Each kind of connection is one small value that can be stored.

A further kind (TLS, a tunnel over SSH) adds a dataclass here and, where sessions are opened
(``incus.session``), the way it becomes an HTTP session; nothing else of a provider knows the difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from iceshelves.core.errors import InvalidInput

_LONGEST_SOCKET: Final = 107


@dataclass(frozen=True, slots=True)
class ImageServer:
    """A SimpleStreams server that the hypervisor may fetch images from; ``name`` as in ``name:alias``.

    ``strip`` is the start of a reference that this server alone serves and leaves out of its aliases
    (Ubuntu's own server calls ``ubuntu/24.04`` just ``24.04``).
    """

    name: str
    url: str
    strip: str = ""


@dataclass(frozen=True, slots=True)
class UnixSocket:
    """The socket of an Incus or LXD daemon.  ``image_servers`` ``None`` means the family's usual ones."""

    path: str
    project: str = "default"
    image_servers: Sequence[ImageServer] | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """A world of the fake provider: its name, the file that keeps it, and the script it plays."""

    world: str
    file: str | None = None
    script: Mapping[str, Any] = field(default_factory=dict)


Connection = UnixSocket | Scenario


def connection_from_url(url: str, script: Mapping[str, Any] | None = None) -> Connection:
    """Read ``unix:///path/to/socket?project=NAME`` or ``fake://WORLD?file=/path``.

    Raises :class:`InvalidInput` ``invalid_connection``.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:  # a bracket that opens no IPv6 address
        raise _invalid(url) from error
    options = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    path = unquote(parts.path)
    if parts.scheme == "unix" and _can_be_a_socket(path) and not parts.netloc:
        return UnixSocket(path, options.get("project", "default"))
    if parts.scheme == "fake" and parts.netloc and not parts.path.strip("/"):
        return Scenario(parts.netloc, options.get("file"), script or {})
    raise _invalid(url)


def _can_be_a_socket(path: str) -> bool:
    """Whether the kernel takes ``path``: absolute, at most 107 bytes (unix(7)), nothing unprintable."""
    return path.startswith("/") and path.isprintable() and len(path.encode()) <= _LONGEST_SOCKET


def _invalid(url: str) -> InvalidInput:
    return InvalidInput(
        f"{url!r} is not an address of a cluster.",
        code="invalid_connection",
        hint="Write unix:///var/lib/incus/unix.socket, or fake://NAME for the built-in fake.",
    )
