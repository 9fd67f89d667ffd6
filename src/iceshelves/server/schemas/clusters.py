"""Clusters over the wire."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from iceshelves.clusters.requests import Family, Hidden
from iceshelves.server.schemas.common import WHOLE, Body, Moment, ObjectName, Prose, Shown, Words

HostName = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9_.:\[\]-]+$")]
UserName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\s@:/\x00]+$")]
PortNumber = Annotated[int, Field(ge=1, le=65535), WHOLE]
#: a certificate, a host key or a fingerprint; what is kept of it is written anew
KeyText = Annotated[str, Field(max_length=16 * 1024)]
ProjectName = Annotated[str, Field(max_length=63, pattern=r"^[A-Za-z0-9._-]+$")]
MaxOperations = Annotated[int, Field(ge=1, le=1000), WHOLE]


class ClusterItem(Shown):
    """A cluster in a list."""

    id: int
    name: str
    description: str
    provider: str
    connection_method: str
    endpoint_url: str
    project: str
    status: str
    is_active: bool
    last_check: Moment | None
    max_operations: int | None
    created_by: str
    created_on: Moment


class ClusterHealth(Shown):
    """How the cluster is, and since when its status is what it is."""

    status: str
    message: str
    checked_at: Moment | None
    since: Moment | None


class ClusterMetadata(Shown):
    """What is known of the machines; ``server`` in the hypervisor's own words."""

    members: list[dict[str, Any]]
    resources: dict[str, Any]
    server: dict[str, Any]


class HostKey(Shown):
    """An SSH server on the way and the key that it has to show."""

    host: str
    port: int
    user: str
    key: str
    fingerprint: str


class ClusterAgent(Shown):
    """The agent that reaches the cluster; ``poll_interval`` in seconds."""

    host: str
    version: str
    poll_interval: int
    last_seen: Moment | None


class ClusterDetail(ClusterItem):
    """A cluster with how it is reached and what its last test found.

    ``client_certificate`` and ``ssh_public_key`` are ours, for the other side to trust;
    ``server_fingerprint`` (SHA-256) and ``ssh_host_keys`` are what the other side has to show.
    """

    auth_type: str
    is_cluster: bool
    client_certificate: str | None
    certificate_expires: Moment | None
    server_fingerprint: str | None
    server_certificate_expires: Moment | None
    ssh_public_key: str | None
    ssh_host_keys: list[HostKey]
    rotating: bool
    agent_last_seen: Moment | None
    agent: ClusterAgent | None
    metadata: ClusterMetadata
    health: ClusterHealth


class JumpBody(Body):
    """An SSH server to jump over.  ``host_key`` as in known_hosts, or its fingerprint."""

    model_config = ConfigDict(title="Jump")

    host: HostName
    user: UserName = "root"
    port: PortNumber = 22
    host_key: KeyText = ""


class ClusterLookBody(Body):
    """Where a hypervisor system is, and over which method.

    ``endpoint_url`` is ``https://host:8443`` for ``direct-api`` and ``ssh://user@host/path/to/unix.socket``
    for ``ssh``, where ``ssh_host``, ``ssh_port`` and ``ssh_user`` may stand for it.
    """

    model_config = ConfigDict(title="ClusterAddress")

    connection_method: Words
    provider: Family = "incus"
    endpoint_url: Words = ""
    ssh_host: HostName | None = None
    ssh_port: PortNumber | None = None
    ssh_user: UserName | None = None
    ssh_jumps: Annotated[list[JumpBody], Field(max_length=8)] = Field(default_factory=list)


class NewClusterBody(ClusterLookBody):
    """A hypervisor system to manage; each connection method has fields of its own.

    ``unix-socket`` (the family's usual one without ``endpoint_url``); ``direct-api``, with
    ``server_certificate`` (PEM or SHA-256) or ``trust_token``; ``ssh``, with ``ssh_host_key`` (a line or its
    fingerprint); ``agent-poll``.  Keys of ours that are not given are made.
    """

    model_config = ConfigDict(
        title="NewCluster",
        json_schema_extra={"examples": [{"name": "edge-1", "connection_method": "agent-poll"}]},
    )

    name: ObjectName
    connection_method: Words = "unix-socket"
    description: Prose = ""
    project: ProjectName = "default"
    max_operations: MaxOperations | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    is_cluster: bool | None = Field(None, description="Found out by looking; accepted for older clients.")
    verify_ssl: bool = Field(True, description="Always true: there is no unverified connection.")
    auth_type: Literal["tls", "certificate"] | None = None
    server_certificate: KeyText = ""
    client_cert: KeyText = ""
    client_key: Hidden | None = None
    trust_token: Hidden | None = None
    trust_password: Hidden | None = None
    ssh_auth: Literal["key", "ssh-agent"] = "key"
    ssh_key: Hidden | None = None
    ssh_host_key: KeyText = ""
    agent_poll_interval: Annotated[int, Field(ge=1, le=3600), WHOLE] | None = None


class ClusterChangeBody(Body):
    """What becomes different; what is left out stays.  ``max_operations`` null: the server's own limit."""

    model_config = ConfigDict(title="ClusterChange")

    description: Prose | None = None
    endpoint_url: Words | None = None
    project: ProjectName | None = None
    max_operations: MaxOperations | None = None
    options: dict[str, Any] | None = None
    agent_poll_interval: Annotated[int, Field(ge=1, le=3600), WHOLE] | None = None
    agent_long_poll: bool | None = None


class AcceptCertificateBody(Body):
    """The SHA-256 of the certificate that the server shows now."""

    model_config = ConfigDict(title="AcceptCertificate")

    fingerprint: Annotated[str, Field(min_length=1, max_length=200)]


class AcceptHostKeyBody(Body):
    """The fingerprint of the key that an SSH server on the way shows now; without ``host`` the last one."""

    model_config = ConfigDict(title="AcceptHostKey")

    fingerprint: Annotated[str, Field(min_length=1, max_length=200)]
    host: Annotated[str, Field(max_length=260)] = ""


class CreatedCluster(Shown):
    """A cluster that is managed now; ``next_step`` is what it still takes until it lets us in."""

    cluster_id: int
    message: str
    client_certificate: str | None = None
    ssh_public_key: str | None = None
    next_step: str | None = None


class ChangedCluster(Shown):
    """A cluster that is different now."""

    cluster_id: int
    message: str


class ShownKey(Shown):
    """What a server shows: a certificate (PEM) or a host key.  ``reason`` says why it cannot be seen.

    ``expected`` is the fingerprint of what it has to show, where that is settled.
    """

    host: str
    port: int
    kind: str
    fingerprint: str | None
    expected: str | None
    value: str | None
    not_after: Moment | None
    reason: str | None


class ClusterLook(Shown):
    """What the servers on the way to a cluster show, first to last; nothing of it is kept or trusted."""

    shown: list[ShownKey]


class RotatedKey(Shown):
    """``status`` is done, or pending until the other side trusts the new certificate or public key."""

    status: str
    public: str
    message: str
    next_step: str | None


class ClusterCheck(Shown):
    """One thing that was tried, and what to do if it did not work.

    ``state`` is passed, warned, failed or not_tried; ``ok`` is true for the first two.
    """

    name: str
    ok: bool
    state: str
    message: str
    remedy: str | None


class ClusterTestDetails(Shown):
    """What a test found."""

    message: str
    server_version: str | None
    api_version: str | None
    checks: list[ClusterCheck]


class ClusterTest(Shown):
    """The result of a test: active or error."""

    status: str
    details: ClusterTestDetails


class DeletedCluster(Shown):
    """A cluster that is managed no more; nothing on it was touched."""

    cluster_id: int
    message: str
