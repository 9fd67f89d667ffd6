"""How a stored cluster is reached: its row and its encrypted keys become a connection.

``Cluster.connection`` holds what the method needs beside the address, as :class:`DirectAccess` or
:class:`SshAccess`; ``Cluster.secrets`` the private keys (:class:`Keys`: PEM or OpenSSH format), encrypted and
bound to its row.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from socket import socket
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from iceshelves.access.cipher import Cipher
from iceshelves.connections.values import (
    AgentStream,
    Connection,
    ImageServer,
    SshHop,
    SshSocket,
    TlsApi,
    UnixSocket,
    connection_from_url,
)
from iceshelves.core.errors import Conflict, InvalidInput
from iceshelves.core.names import OBJECT_NAME
from iceshelves.core.secret import Secret
from iceshelves.store.models import Cluster

#: the names under which the API knows the methods; the original's come with them
SOCKET: Final = "unix-socket"
DIRECT: Final = "direct-api"
SSH: Final = "ssh"
AGENT: Final = "agent-poll"
METHODS: Final = (SOCKET, DIRECT, SSH, AGENT)

#: asks the agent of a cluster (by id) for a stream to its hypervisor
OpenStream = Callable[[int], Awaitable[socket]]
_SSH_EXAMPLE: Final = "ssh://root@host.example.org/var/lib/incus/unix.socket"
_HOST: Final = re.compile(r"[A-Za-z0-9_.:%-]{1,253}")
_NO_PORT: Final = "its port has to be a number from 1 to 65535"
_API_PORT: Final = 8443
_SSH_PORT: Final = 22


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DirectAccess(_Stored):
    """``certificate``: our client's (PEM); ``trusted``: the one the server may show (PEM).

    While the client's certificate is being rotated, ``next_certificate`` is the one to come and ``retiring``
    the fingerprint of one that the server need not trust any more.
    """

    certificate: str
    trusted: str
    next_certificate: str = ""
    retiring: str = ""


class Hop(_Stored):
    """One SSH server and the key it has to show."""

    host: str
    user: str
    port: Annotated[int, Field(ge=1, le=65535)] = _SSH_PORT
    host_key: str


class SshAccess(_Stored):
    """``hops`` lead to the hypervisor, the last one being it; ``public_key`` is what they have to trust.

    ``next_public_key`` is that of a rotation that has begun.
    """

    hops: Annotated[tuple[Hop, ...], Field(min_length=1)]
    auth: Literal["key", "ssh-agent"] = "key"
    public_key: str = ""
    next_public_key: str = ""


@dataclass(frozen=True, slots=True)
class Keys:
    """Our private keys to one cluster: the one in use, and that of a rotation that has begun."""

    key: Secret
    next: Secret | None = None


class _Source(_Stored):
    name: Annotated[str, Field(pattern=f"^{OBJECT_NAME.pattern}$")]
    url: Annotated[str, Field(pattern=r"^https?://[^\s@?#]+$")]


class _IncusOptions(_Stored):
    """``image_servers``: the SimpleStreams servers to fetch from, instead of the usual ones.

    ``images_through``: who fetches from them for a hypervisor that has no other way out; only an agent can
    pass on what the server fetches.
    """

    image_servers: tuple[_Source, ...] | None = None
    images_through: Literal["server"] | None = None


_OPTIONS_EXAMPLES: Final = {
    "image_servers": 'Write {"image_servers": [{"name": "own", "url": "https://images.example.org"}]}.',
    "images_through": 'Write {"images_through": "server"}, or leave it out.',
}
_KNOWN_OPTIONS: Final = f"Its options are {' and '.join(_IncusOptions.model_fields)}; leave out others."


def secret_place(cluster_id: int) -> str:
    """What the encryption of a cluster's private key is bound to."""
    return f"clusters.secrets:{cluster_id}"


class Reach:
    """Turns stored clusters into connections.  ``open_stream`` serves those that an agent reaches."""

    def __init__(self, cipher: Cipher, open_stream: OpenStream) -> None:
        self._cipher = cipher
        self._open_stream = open_stream

    def connection(self, cluster: Cluster) -> Connection:
        """How ``cluster`` is reached.  Raises :class:`InvalidInput` where its row cannot be made sense of."""
        if cluster.provider == "fake":
            return connection_from_url(cluster.endpoint_url or f"fake://{cluster.name}", cluster.options)
        if passes_images(cluster.options) and cluster.connection_method != AGENT:
            raise InvalidInput(
                "Only for a cluster that an agent reaches can images come through the server.",
                code="field_without_effect",
                hint="Leave the option images_through out.",
            )
        if cluster.connection_method == DIRECT:
            return self.tls(cluster)
        if cluster.connection_method == SSH:
            return self.ssh(cluster)
        servers = image_servers(cluster.options)
        if cluster.connection_method == AGENT:
            number = cluster.id
            return AgentStream(cluster.name, lambda: self._open_stream(number), cluster.project, servers)
        return replace(socket_at(cluster.endpoint_url), project=cluster.project, image_servers=servers)

    def tls(self, cluster: Cluster) -> TlsApi:
        """The same where it is known to go over ``direct-api``."""
        host, port = api_address(cluster.endpoint_url)
        stored = DirectAccess.model_validate(cluster.connection)
        servers = image_servers(cluster.options)
        key = self.keys(cluster).key
        return TlsApi(host, port, stored.certificate, key, stored.trusted, cluster.project, servers)

    def next_tls(self, cluster: Cluster) -> TlsApi:
        """With the certificate of the rotation that has begun.  Raises :class:`Conflict` ``no_rotation``."""
        stored = DirectAccess.model_validate(cluster.connection)
        return replace(self.tls(cluster), certificate=stored.next_certificate, key=self._next_key(cluster))

    def ssh(self, cluster: Cluster) -> SshSocket:
        """The same where it is known to go over ``ssh``."""
        stored = SshAccess.model_validate(cluster.connection)
        return SshSocket(
            ssh_hops(stored.hops),
            ssh_address(cluster.endpoint_url).path,
            self.keys(cluster).key if stored.auth == "key" else None,
            project=cluster.project,
            image_servers=image_servers(cluster.options),
        )

    def next_ssh(self, cluster: Cluster) -> SshSocket:
        """With the key of the rotation that has begun.  Raises :class:`Conflict` ``no_rotation``."""
        return replace(self.ssh(cluster), key=self._next_key(cluster))

    def keys(self, cluster: Cluster) -> Keys:
        """Our private keys.  Raises :class:`Failed` ``undecryptable``."""
        plain = json.loads(self._cipher.decrypt(cluster.secrets or b"", secret_place(cluster.id)))
        return Keys(Secret(plain["key"]), Secret(plain["next"]) if plain["next"] else None)

    def seal(self, cluster_id: int, keys: Keys) -> bytes:
        """``keys`` as they are stored in the row of that cluster, and in no other."""
        plain = {"key": keys.key.reveal(), "next": keys.next.reveal() if keys.next else None}
        return self._cipher.encrypt(json.dumps(plain).encode(), secret_place(cluster_id))

    def _next_key(self, cluster: Cluster) -> Secret:
        found = self.keys(cluster).next
        if found is None:
            raise Conflict(
                f"The rotation of the key to {cluster.name} has been finished by somebody else.",
                code="no_rotation",
                hint="iceshelves cluster show says which key is in use.",
            )
        return found


def socket_at(url: str) -> UnixSocket:
    """The socket at ``url``: a path, or ``unix:///path``.  Raises :class:`InvalidInput`."""
    if not url:
        raise InvalidInput(
            "The cluster's socket is missing.",
            code="invalid_connection",
            hint="Give its path, for example /var/lib/incus/unix.socket.",
        )
    if "://" not in url and not url.startswith(("/", "unix:")):
        raise InvalidInput(
            "The path must be absolute.",
            code="invalid_connection",
            hint=f"{url[:200]!r} has to begin with a slash, as in /var/lib/incus/unix.socket.",
        )
    connection = connection_from_url(url if url.startswith("unix:") else f"unix://{url}")
    if isinstance(connection, UnixSocket):
        return connection
    raise InvalidInput(f"{url} is not a unix socket.", code="invalid_connection")


def api_address(url: str) -> tuple[str, int]:
    """Host and port of ``https://host[:8443]``.  Raises :class:`InvalidInput` ``invalid_connection``."""
    return _host_and_port(url, "https", _API_PORT, "https://host.example.org:8443")


@dataclass(frozen=True, slots=True)
class SshAddress:
    """A hypervisor's SSH server and the daemon's socket behind it; ``path`` may be empty."""

    user: str
    host: str
    port: int
    path: str

    def to_url(self) -> str:
        """As :func:`ssh_address` reads it."""
        return f"ssh://{quote(self.user, safe='')}@{url_host(self.host)}:{self.port}{quote(self.path)}"


def ssh_address(url: str) -> SshAddress:
    """Read ``ssh://user@host[:22]/path/to/unix.socket``; without a user it is root.

    Raises :class:`InvalidInput` ``invalid_connection``.
    """
    host, port = _host_and_port(url, "ssh", _SSH_PORT, _SSH_EXAMPLE)
    parts = urlsplit(url if "://" in url else f"ssh://{url}")
    path = unquote(parts.path).rstrip("/")
    if path:
        socket_at(path)
    return SshAddress(unquote(parts.username or "root"), host, port, path)


def ssh_hops(hops: Sequence[Hop]) -> tuple[SshHop, ...]:
    """The stored way as connections take it."""
    return tuple(SshHop(hop.host, hop.user, hop.host_key, hop.port) for hop in hops)


def url_host(host: str) -> str:
    """``host`` as it stands in a URL: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def _host_and_port(url: str, scheme: str, usual: int, example: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url if "://" in url else f"{scheme}://{url}")
        host = parts.hostname or ""
    except ValueError as error:  # an IPv6 address that is none
        raise _no_address(url, "its host cannot be one", example) from error
    try:
        port = usual if parts.port is None else parts.port
    except ValueError as error:
        raise _no_address(url, _NO_PORT, example) from error
    if parts.scheme != scheme:
        raise _no_address(url, f"it has to begin with {scheme}://", example)
    if parts.password is not None:
        raise _no_address(url, "there is no place for a password in it", example)
    if not port:
        raise _no_address(url, _NO_PORT, example)
    if not _HOST.fullmatch(host):
        raise _no_address(url, "its host cannot be one" if host else "it names no host", example)
    return host, port


def _no_address(url: str, why: str, example: str) -> InvalidInput:
    """What stands before an ``@`` is not repeated: it may hold a password."""
    shown = f"…@{url.rpartition('@')[2]}" if "@" in url else url
    return InvalidInput(
        f"The cluster's address {shown[:200]!r} cannot be read: {why}.",
        code="invalid_connection",
        hint=f"Write {example}.",
    )


def passes_images(options: dict[str, Any]) -> bool:
    """Whether a cluster's images come through this server."""
    return options.get("images_through") == "server"


def image_servers(options: dict[str, Any]) -> tuple[ImageServer, ...] | None:
    """The image servers that a cluster's options name.  Raises :class:`InvalidInput` ``invalid_options``."""
    try:
        wanted = _IncusOptions.model_validate(options).image_servers
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(
            f"The cluster's options are wrong at {where}: {first['msg']}",
            code="invalid_options",
            hint=_OPTIONS_EXAMPLES.get(str(first["loc"][0]) if first["loc"] else "", _KNOWN_OPTIONS),
        ) from error
    return None if wanted is None else tuple(ImageServer(source.name, source.url) for source in wanted)
