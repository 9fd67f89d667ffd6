"""The certificate or host key that a cluster has to show is replaced: by the very one that the user named."""

from __future__ import annotations

from typing import Any

from iceshelves.clusters import reaching
from iceshelves.clusters.adding import Shown, differs
from iceshelves.clusters.hints import hints_for
from iceshelves.clusters.outside import Outside, SshLook
from iceshelves.clusters.reaching import DIRECT, SSH, DirectAccess, Reach, SshAccess
from iceshelves.clusters.rows import Act, ClusterRows, Edit
from iceshelves.clusters.wishes import certificate_fingerprint
from iceshelves.core.errors import InvalidInput
from iceshelves.core.threads import in_thread
from iceshelves.store.models import Cluster


class Pins:
    """See the module."""

    def __init__(self, rows: ClusterRows, reach: Reach, outside: Outside) -> None:
        self._rows = rows
        self._reach = reach
        self._outside = outside

    async def look(self, act: Act) -> tuple[Shown, ...]:
        """What the servers on the way show now, beside what they have to show.

        Raises :class:`NotFound`, :class:`InvalidInput` ``nothing_to_accept``, and what the connection does.
        """
        cluster = await in_thread(self._rows.find, act.actor, act.cluster_id)
        if cluster.connection_method == DIRECT:
            return (await self._look_at_certificate(cluster),)
        if cluster.connection_method == SSH:
            return await self._look_at_hops(cluster)
        raise _nothing_to_accept(cluster, "certificate or host key")

    async def accept_certificate(self, act: Act, wanted: str) -> str:
        """Trust the certificate with the SHA-256 ``wanted`` from now on, if the server shows it right now.

        Returns its fingerprint.  Raises :class:`NotFound`, :class:`InvalidInput`, and :class:`Denied`
        ``fingerprint_differs``.
        """
        from iceshelves.connections.certificates import fingerprint

        cluster = await in_thread(self._rows.find, act.actor, act.cluster_id)
        if cluster.connection_method != DIRECT:
            raise _nothing_to_accept(cluster, "certificate")
        accepted = certificate_fingerprint(wanted, cluster.provider)
        shown = await self._look_at_certificate(cluster)
        _check_named(shown, accepted)

        def accept(row: Cluster) -> dict[str, Any]:
            stored = DirectAccess.model_validate(row.connection)
            row.connection = stored.model_copy(update={"trusted": shown.value}).model_dump(mode="json")
            return {"former": fingerprint(stored.trusted), "accepted": accepted}

        await in_thread(self._rows.edit, act, Edit("cluster.accept-certificate", accept))
        return accepted

    async def accept_host_key(self, act: Act, wanted: str, host: str = "") -> str:
        """The same for the SSH host key of ``host``, a server on the way; without one the last."""
        from iceshelves.connections.ssh_keys import fingerprint

        cluster = await in_thread(self._rows.find, act.actor, act.cluster_id)
        if cluster.connection_method != SSH:
            raise _nothing_to_accept(cluster, "host key")
        number = _number(SshAccess.model_validate(cluster.connection), host)
        accepted = wanted.strip().rstrip("=")
        shown = await self._look_at_hop(cluster, number)
        _check_named(shown, accepted)

        def accept(row: Cluster) -> dict[str, Any]:
            kept = SshAccess.model_validate(row.connection)
            changed = kept.hops[number].model_copy(update={"host_key": shown.value})
            hops = (*kept.hops[:number], changed, *kept.hops[number + 1 :])
            row.connection = kept.model_copy(update={"hops": hops}).model_dump(mode="json")
            former = fingerprint(kept.hops[number].host_key)
            return {"host": shown.host, "former": former, "accepted": accepted}

        await in_thread(self._rows.edit, act, Edit("cluster.accept-host-key", accept))
        return accepted

    async def _look_at_certificate(self, cluster: Cluster) -> Shown:
        from iceshelves.connections.certificates import fingerprint, not_after

        host, port = reaching.api_address(cluster.endpoint_url)
        with hints_for(cluster):
            pem = await self._outside.certificate(host, port)
        trusted = DirectAccess.model_validate(cluster.connection).trusted
        return Shown(
            host,
            port,
            "certificate",
            fingerprint(pem),
            expected=fingerprint(trusted),
            value=pem,
            not_after=not_after(pem),
        )

    async def _look_at_hops(self, cluster: Cluster) -> tuple[Shown, ...]:
        """One after the other; behind one that shows another key, nobody can be seen."""
        stored = SshAccess.model_validate(cluster.connection)
        found: list[Shown] = []
        for number, hop in enumerate(stored.hops):
            if found and found[-1].fingerprint != found[-1].expected:
                reason = f"It can be seen only once {found[-1].host} shows what it has to show."
                found.append(Shown(hop.host, hop.port, "host_key", reason=reason))
            else:
                found.append(await self._look_at_hop(cluster, number))
        return tuple(found)

    async def _look_at_hop(self, cluster: Cluster, number: int) -> Shown:
        from iceshelves.connections.ssh_keys import fingerprint

        stored = SshAccess.model_validate(cluster.connection)
        hop = stored.hops[number]
        key = self._reach.keys(cluster).key if stored.auth == "key" else None
        with hints_for(cluster):
            line = await self._outside.host_key(SshLook(reaching.ssh_hops(stored.hops[: number + 1]), key))
        expected = fingerprint(hop.host_key)
        return Shown(hop.host, hop.port, "host_key", fingerprint(line), expected=expected, value=line)


def _check_named(shown: Shown, wanted: str) -> None:
    if shown.fingerprint != wanted:
        raise differs(f"{shown.host}:{shown.port}", wanted, shown.fingerprint or "nothing")


def _number(stored: SshAccess, host: str) -> int:
    """Which server on the way is meant.  Raises :class:`InvalidInput` ``host_not_on_the_way``."""
    if not host:
        return len(stored.hops) - 1
    for number, hop in enumerate(stored.hops):
        if host in (hop.host, f"{reaching.url_host(hop.host)}:{hop.port}"):
            return number
    raise InvalidInput(
        f"{host} is not on the way to this cluster.",
        code="host_not_on_the_way",
        hint=f"It leads over {', '.join(hop.host for hop in stored.hops)}.",
    )


def _nothing_to_accept(cluster: Cluster, what: str) -> InvalidInput:
    return InvalidInput(
        f"{cluster.name} is reached over {cluster.connection_method!r}, which has no {what}.",
        code="nothing_to_accept",
        hint="iceshelves cluster show says how a cluster is reached.",
    )
