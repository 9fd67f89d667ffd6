"""Where a hypervisor system is reached, as small values that can be compared and passed around."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from socket import socket
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from iceshelves.core.errors import InvalidInput
from iceshelves.core.secret import Secret

_LONGEST_SOCKET: Final = 107


@dataclass(frozen=True, slots=True)
class ImageServer:
    """A SimpleStreams server that the hypervisor may fetch images from; ``name`` as in ``name:alias``.

    ``strip`` is the start of a reference that this server alone serves and leaves out of its aliases
    (Ubuntu's own server calls ``ubuntu/24.04`` just ``24.04``).  ``lasting``: whether the URL is good for
    longer than this process.
    """

    name: str
    url: str
    strip: str = ""
    lasting: bool = True


@dataclass(frozen=True, slots=True)
class UnixSocket:
    """The socket of an Incus or LXD daemon.  ``image_servers`` ``None`` means the family's usual ones."""

    path: str
    project: str = "default"
    image_servers: Sequence[ImageServer] | None = None


@dataclass(frozen=True, slots=True)
class TlsApi:
    """The HTTPS API of an Incus or LXD daemon.

    ``certificate`` and ``key`` are our client's, in PEM.  ``trusted`` is the one certificate (PEM) that the
    server may show: its own, or that of the authority which signed it.
    """

    host: str
    port: int
    certificate: str
    key: Secret
    trusted: str
    project: str = "default"
    image_servers: Sequence[ImageServer] | None = None


@dataclass(frozen=True, slots=True)
class SshHop:
    """One SSH server.  ``host_key`` is the only key it may show, as in known_hosts: ``ssh-ed25519 AAAA…``."""

    host: str
    user: str
    host_key: str
    port: int = 22


@dataclass(frozen=True, slots=True)
class SshSocket:
    """The unix socket ``path`` of a daemon, behind the last of ``hops``; those before it are jumped over.

    ``key`` is our private key in OpenSSH's format; without one the ssh-agent at ``agent_socket`` is asked.
    """

    hops: tuple[SshHop, ...]
    path: str
    key: Secret | None = None
    agent_socket: str | None = None
    project: str = "default"
    image_servers: Sequence[ImageServer] | None = None


@dataclass(frozen=True, slots=True)
class AgentStream:
    """The daemon beside a polling agent.  ``open`` gives a connected socket, whose other end the agent joins
    to the daemon's; it raises ``Temporary`` where the agent is away and ``Unsupported`` where it only polls.
    """

    name: str
    open: Callable[[], Awaitable[socket]]
    project: str = "default"
    image_servers: Sequence[ImageServer] | None = None


#: every way to an Incus or LXD
HypervisorConnection = UnixSocket | TlsApi | SshSocket | AgentStream


@dataclass(frozen=True, slots=True)
class Scenario:
    """A world of the fake provider: its name, the file that keeps it, and the script it plays."""

    world: str
    file: str | None = None
    script: Mapping[str, Any] = field(default_factory=dict)


Connection = HypervisorConnection | Scenario


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
