"""From clusters to the objects that go out: what they show is public, and no key is in it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from iceshelves.clusters.adding import Shown
from iceshelves.clusters.reaching import AGENT, DIRECT, SSH, DirectAccess, SshAccess
from iceshelves.clusters.report import ClusterReport
from iceshelves.clusters.rotation import Rotated, how_to_trust
from iceshelves.connections.certificates import fingerprint, not_after
from iceshelves.connections.ssh_keys import fingerprint as ssh_fingerprint
from iceshelves.server.schemas.clusters import (
    ClusterAgent,
    ClusterCheck,
    ClusterDetail,
    ClusterHealth,
    ClusterLook,
    ClusterMetadata,
    ClusterTest,
    ClusterTestDetails,
    CreatedCluster,
    HostKey,
    RotatedKey,
    ShownKey,
)
from iceshelves.store.queries.pages import Row

#: what proves to the other side who we are, where it is always the same
_AUTH: Final = {DIRECT: "tls", AGENT: "agent"}
_KEYS: Final = (
    "auth_type", "client_certificate", "certificate_expires", "server_fingerprint",
    "server_certificate_expires", "ssh_public_key", "ssh_host_keys", "rotating",
)  # fmt: skip
_OWN: Final = frozenset({*_KEYS, "metadata", "health", "agent", "agent_last_seen"})


def cluster(row: Row) -> ClusterDetail:
    """One cluster, with what its last test found."""
    server = dict(row.server_info)
    return ClusterDetail(
        **{name: getattr(row, name) for name in ClusterDetail.model_fields if name not in _OWN},
        **_keys(row),
        metadata=ClusterMetadata(
            members=server.pop("members", []), resources=server.pop("resources", {}), server=server
        ),
        health=ClusterHealth(
            status=row.status,
            message=row.status_message,
            checked_at=row.last_check,
            since=row.status_since,
        ),
        agent_last_seen=row.agent_last_seen,
        agent=ClusterAgent(
            host=row.agent_host,
            version=row.agent_version,
            poll_interval=row.agent_poll_interval,
            last_seen=row.agent_last_seen,
        )
        if row.agent_host is not None
        else None,
    )


def created(row: Row, trusted: bool) -> CreatedCluster:
    """A cluster that is managed now, and what is still to be done so that it lets us in."""
    keys = _keys(row)
    return CreatedCluster(
        cluster_id=row.id,
        message=f"{row.name} is managed now.",
        client_certificate=keys["client_certificate"],
        ssh_public_key=keys["ssh_public_key"],
        next_step=None if trusted else _next_step(row, keys),
    )


def rotated(found: Rotated) -> RotatedKey:
    """How far a rotation has come."""
    return RotatedKey.model_validate(found)


def look(found: Iterable[Shown]) -> ClusterLook:
    """What servers show."""
    return ClusterLook(shown=[ShownKey.model_validate(one) for one in found])


def cluster_test(report: ClusterReport) -> ClusterTest:
    """What a test found."""
    return ClusterTest(
        status=report.status,
        details=ClusterTestDetails(
            message=report.message,
            server_version=report.server.version if report.server else None,
            api_version=report.server.api_version if report.server else None,
            checks=[ClusterCheck.model_validate(check) for check in report.checks],
        ),
    )


def _keys(row: Row) -> dict[str, Any]:
    """The public parts of what a connection is secured with."""
    found: dict[str, Any] = {
        **dict.fromkeys(_KEYS),
        "auth_type": _AUTH.get(row.connection_method, "unix"),
        "ssh_host_keys": [],
        "rotating": False,
    }
    if row.provider == "fake":
        return found
    if row.connection_method == DIRECT:
        direct = DirectAccess.model_validate(row.connection)
        found.update(
            client_certificate=direct.certificate,
            certificate_expires=not_after(direct.certificate),
            server_fingerprint=fingerprint(direct.trusted),
            server_certificate_expires=not_after(direct.trusted),
            rotating=bool(direct.next_certificate or direct.retiring),
        )
    elif row.connection_method == SSH:
        ssh = SshAccess.model_validate(row.connection)
        found.update(
            auth_type=f"ssh-{ssh.auth}" if ssh.auth == "key" else ssh.auth,
            ssh_public_key=ssh.public_key or None,
            ssh_host_keys=[
                HostKey(
                    host=hop.host,
                    port=hop.port,
                    user=hop.user,
                    key=hop.host_key,
                    fingerprint=ssh_fingerprint(hop.host_key),
                )
                for hop in ssh.hops
            ],
            rotating=bool(ssh.next_public_key),
        )
    return found


def _next_step(row: Row, keys: dict[str, Any]) -> str | None:
    if keys["client_certificate"]:
        return how_to_trust(row.provider)
    if keys["ssh_public_key"]:
        places = ", ".join(f"{hop.user}@{hop.host}" for hop in keys["ssh_host_keys"])
        return f"Add the public key to ~/.ssh/authorized_keys of {places}"
    return None
