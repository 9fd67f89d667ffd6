"""New keys for a cluster that stays reachable throughout: the old one serves until the new one has worked.

What has been begun is in the row, so whoever is interrupted, at any point, asks again and it goes on: the
key to come is made once, tried, put in place, and only then the former one is retired.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from iceshelves.clusters.hints import hints_for
from iceshelves.clusters.outside import Outside
from iceshelves.clusters.reaching import DIRECT, SSH, DirectAccess, Keys, Reach, SshAccess
from iceshelves.clusters.rows import Act, ClusterRows, Edit
from iceshelves.connections.values import TlsApi
from iceshelves.core.errors import Denied, InvalidInput
from iceshelves.core.secret import Secret
from iceshelves.core.threads import in_thread
from iceshelves.store.models import Cluster


@dataclass(frozen=True, slots=True)
class Rotated:
    """``status`` is done, or pending while the other side does not trust the new key yet.

    ``public`` is the new certificate (PEM) or public key; ``next_step`` what a person has to do.
    """

    status: str
    public: str
    message: str
    next_step: str | None = None


class Rotation:
    """See the module."""

    def __init__(self, rows: ClusterRows, reach: Reach, outside: Outside) -> None:
        self._rows = rows
        self._reach = reach
        self._outside = outside

    async def rotate(self, act: Act) -> Rotated:
        """Begin, or go on with, a rotation.

        Raises :class:`NotFound`, :class:`InvalidInput` ``nothing_to_rotate``, and what the connection does.
        """
        cluster = await in_thread(self._rows.find, act.actor, act.cluster_id)
        with hints_for(cluster):
            if cluster.connection_method == DIRECT:
                return await self._rotate_certificate(act, DirectAccess.model_validate(cluster.connection))
            if cluster.connection_method == SSH and cluster.secrets is not None:
                return await self._rotate_ssh_key(act)
        raise InvalidInput(
            f"IceShelves holds no key to {cluster.name} that it could renew.",
            code="nothing_to_rotate",
            hint="Only clusters over direct-api, and over ssh with a key, have one.",
        )

    async def _rotate_certificate(self, act: Act, stored: DirectAccess) -> Rotated:
        if not stored.retiring:
            cluster = await in_thread(self._begin, act)
            if refusal := await self._introduce(cluster):
                return refusal
            await in_thread(self._switch, act)
        cluster = await in_thread(self._rows.find, act.actor, act.cluster_id)
        present = self._reach.tls(cluster)
        former = DirectAccess.model_validate(cluster.connection).retiring
        await self._outside.retire_certificate(present, former)
        await in_thread(self._rows.edit, act, Edit("cluster.retired", _forget_former))
        return Rotated(
            "done", present.certificate, "The new certificate is in use; the former one is retired."
        )

    async def _introduce(self, cluster: Cluster) -> Rotated | None:
        """Have the hypervisor trust the certificate to come; what to do by hand where it will not."""
        new, present = self._reach.next_tls(cluster), self._reach.tls(cluster)
        if await self._outside.trusts(new):
            return None
        try:
            await self._outside.add_certificate(present, new.certificate)
        except Denied as error:
            return Rotated(
                "pending",
                new.certificate,
                f"The new certificate is made, but we may not have it trusted ourselves: {error.message}",
                f"{how_to_trust(cluster.provider)}\nThen: iceshelves cluster rotate {cluster.name}",
            )
        return None if await self._outside.trusts(new) else _not_taken(new)

    async def _rotate_ssh_key(self, act: Act) -> Rotated:
        cluster = await in_thread(self._begin, act)
        new = self._reach.next_ssh(cluster)
        stored = SshAccess.model_validate(cluster.connection)
        places = ", ".join(f"{hop.user}@{hop.host}" for hop in stored.hops)
        try:
            await self._outside.trusts(new)
        except Denied as error:
            if error.code != "ssh_denied":
                raise
            return Rotated(
                "pending",
                stored.next_public_key,
                "The new key is made; the present one stays in use until the new one works.",
                f"Add the new line to ~/.ssh/authorized_keys of {places}, then rotate again.",
            )
        await in_thread(self._switch, act)
        return Rotated(
            "done",
            stored.next_public_key,
            "The new key is in use.",
            f"Take the former one out of ~/.ssh/authorized_keys of {places}: {stored.public_key}",
        )

    def _begin(self, act: Act) -> Cluster:
        """Make the key to come, unless there is one."""

        def begin(cluster: Cluster) -> dict[str, Any]:
            keys = self._reach.keys(cluster)
            if keys.next is None:
                public, private = _make(cluster)
                cluster.connection = {**cluster.connection, _NEXT[cluster.connection_method]: public}
                cluster.secrets = self._reach.seal(cluster.id, Keys(keys.key, private))
            return {}

        self._rows.edit(act, Edit("cluster.rotate", begin))
        return self._rows.find(act.actor, act.cluster_id)

    def _switch(self, act: Act) -> None:
        """Put the key to come in place of the present one."""

        def switch(cluster: Cluster) -> dict[str, Any]:
            following = self._reach.keys(cluster).next
            if following is None:  # somebody else has done it
                return {}
            cluster.connection = _switched(cluster)
            cluster.secrets = self._reach.seal(cluster.id, Keys(following))
            return {"switched": True}

        self._rows.edit(act, Edit("cluster.rotate", switch))


#: where the public part of the key to come is kept
_NEXT = {DIRECT: "next_certificate", SSH: "next_public_key"}


def _make(cluster: Cluster) -> tuple[str, Secret]:
    if cluster.connection_method == SSH:
        from iceshelves.connections.ssh_keys import make_key_pair

        pair = make_key_pair(f"iceshelves-{cluster.name}")
        return pair.public, pair.private
    from iceshelves.connections.certificates import make_client_certificate

    made = make_client_certificate(cluster.name)
    return made.certificate, made.key


def _switched(cluster: Cluster) -> dict[str, Any]:
    if cluster.connection_method == SSH:
        present = SshAccess.model_validate(cluster.connection)
        changed = {"public_key": present.next_public_key, "next_public_key": ""}
        return present.model_copy(update=changed).model_dump(mode="json")
    from iceshelves.connections.certificates import fingerprint

    stored = DirectAccess.model_validate(cluster.connection)
    return DirectAccess(
        certificate=stored.next_certificate,
        trusted=stored.trusted,
        retiring=fingerprint(stored.certificate),
    ).model_dump(mode="json")


def _forget_former(cluster: Cluster) -> dict[str, Any]:
    retired = cluster.connection.get("retiring")
    cluster.connection = {**cluster.connection, "retiring": ""}
    return {"certificate": retired}


def _not_taken(new: TlsApi) -> Rotated:
    return Rotated(
        "pending",
        new.certificate,
        "The hypervisor took the new certificate, but does not trust it yet.",
        "Rotate again in a moment.",
    )


def how_to_trust(provider: str) -> str:
    """How a person has a hypervisor trust a certificate of ours."""
    if provider == "lxd":
        return "On the hypervisor, save the certificate as FILE and run: lxc config trust add FILE"
    return "On the hypervisor, give the certificate to: incus config trust add-certificate -"
