"""What callers can ask for of clusters, checked at the edge."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field, PlainSerializer, PlainValidator, WithJsonSchema

from iceshelves.core.request import Request
from iceshelves.core.secret import REDACTED, Secret

Family = Literal["incus", "lxd", "fake"]
#: a host name or an address; it is only ever dialled, and never becomes part of a command
Host = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9_.:\[\]-]+$")]
Port = Annotated[int, Field(ge=1, le=65535)]
MaxOperations = Annotated[int, Field(ge=1, le=1000)]
#: seconds
PollInterval = Annotated[int, Field(ge=1, le=3600)]
_LONGEST_SECRET: Final = 16 * 1024


def _hidden(value: Any) -> Secret:
    plain = value.reveal() if isinstance(value, Secret) else value
    if not isinstance(plain, str) or not 0 < len(plain) <= _LONGEST_SECRET or "\x00" in plain:
        raise ValueError(f"must be text of 1 to {_LONGEST_SECRET} characters")
    return Secret(plain)


#: text that comes in and is never shown again
Hidden = Annotated[
    Secret,
    PlainValidator(_hidden),
    PlainSerializer(lambda _secret: REDACTED, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": _LONGEST_SECRET, "writeOnly": True}),
]


class Jump(Request):
    """An SSH server on the way.  ``host_key`` as in known_hosts, or its fingerprint; empty: not known yet."""

    host: Host
    user: str = "root"
    port: Port = 22
    host_key: str = ""


class ClusterAddress(Request):
    """Where a hypervisor system is, and over which method; each method has fields of its own.

    ``endpoint_url`` is ``https://host:8443`` for ``direct-api``, ``ssh://user@host/path/to/unix.socket`` for
    ``ssh`` (or ``ssh_host`` and its kin) and a path for ``unix-socket``.
    """

    connection_method: str = "unix-socket"
    provider: Family = "incus"
    endpoint_url: str = ""
    verify_ssl: bool = True
    trust_token: Hidden | None = None
    ssh_host: Host | None = None
    ssh_port: Port | None = None
    ssh_user: str | None = None
    ssh_jumps: tuple[Jump, ...] = ()


class NewCluster(ClusterAddress):
    """A hypervisor system to manage, and how it is reached.

    ``server_certificate`` (PEM, or its SHA-256) and ``ssh_host_key`` (a line, or its fingerprint) are the
    only ones that the other side may show.  Keys of ours that are not given are made.
    """

    name: str
    description: str = ""
    project: str = "default"
    max_operations: MaxOperations | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    auth_type: Literal["tls", "certificate"] | None = None
    server_certificate: str = ""
    client_cert: str = ""
    client_key: Hidden | None = None
    trust_password: Hidden | None = None
    ssh_auth: Literal["key", "ssh-agent"] = "key"
    ssh_key: Hidden | None = None
    ssh_host_key: str = ""
    agent_poll_interval: PollInterval | None = None


class ClusterChange(Request):
    """What becomes different; what is left out stays.  No ``max_operations``: the server's own."""

    description: str | None = None
    endpoint_url: str | None = None
    project: str | None = None
    max_operations: MaxOperations | None = None
    options: dict[str, Any] | None = None
    agent_poll_interval: PollInterval | None = None
    agent_long_poll: bool | None = None
