"""What a new cluster's row holds: its address checked, the other side's key pinned, our own key made.

Trust on first use is the user's decision and never ours: what a server shows is told (:meth:`Adding.look`),
and taken only when the caller names it.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from iceshelves.clusters import reaching
from iceshelves.clusters.outside import Outside, Proof, SshLook
from iceshelves.clusters.reaching import AGENT, DIRECT, SOCKET, SSH, DirectAccess, Hop, SshAccess
from iceshelves.clusters.requests import ClusterAddress, NewCluster
from iceshelves.clusters.wishes import (
    certificate_fingerprint,
    check_fields,
    checked_socket,
    client_of,
    host_key_line,
    https_url,
    method_of,
    ssh_address_of,
    way_of,
)
from iceshelves.connections.unix import usual_socket
from iceshelves.connections.values import SshHop
from iceshelves.core.errors import Denied, IceShelvesError, InvalidInput
from iceshelves.core.secret import Secret

if TYPE_CHECKING:
    from iceshelves.providers.incus.trust import TrustToken

_CERTIFICATE: Final = "-----BEGIN CERTIFICATE-----"
_COMPARE_HOST_KEY: Final = "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub"


@dataclass(frozen=True, slots=True)
class Shown:
    """What one server shows of itself.  ``kind`` is certificate or host_key; ``value`` PEM or a line.

    ``expected`` is the fingerprint of what it has to show, where that is settled; ``reason`` says why there
    is no fingerprint, and ``not_after`` is a certificate's.
    """

    host: str
    port: int
    kind: str
    fingerprint: str | None = None
    expected: str | None = None
    value: str | None = None
    not_after: datetime | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """What goes into the row, and the proof with which the hypervisor is then asked to trust us."""

    method: str
    address: str
    connection: dict[str, Any] = field(default_factory=dict)
    key: Secret | None = None
    proof: Proof | None = None


class Adding:
    """``outside`` is asked before anything is stored."""

    def __init__(self, outside: Outside) -> None:
        self._outside = outside

    async def look(self, wanted: ClusterAddress) -> tuple[Shown, ...]:
        """What the servers on the way show, first to last; nothing is kept.

        Raises :class:`InvalidInput` ``nothing_to_look_at`` for methods that pin nothing, and what the
        network does.
        """
        method = method_of(wanted.connection_method)
        check_fields(wanted, method)
        if method == DIRECT:
            return (await self._shown_certificate(wanted),)
        if method == SSH:
            return await self._shown_host_keys(wanted)
        raise InvalidInput(
            f"A cluster over {method!r} shows no certificate or host key.",
            code="nothing_to_look_at",
            hint="Just add it.",
        )

    async def prepare(self, new: NewCluster) -> Prepared:
        """Check ``new``, pin the other side and make our key.

        Raises :class:`InvalidInput` (``fingerprint_needed`` where nobody vouches for what the server shows)
        and :class:`Denied` ``fingerprint_differs``.
        """
        method = method_of(new.connection_method)
        if method == DIRECT and new.provider != "fake":
            check_fields(new, method)
            return await self._direct(new)
        if method == SSH and new.provider != "fake":
            check_fields(new, method)
            return await self._ssh(new)
        return prepare_here(new)

    async def _direct(self, new: NewCluster) -> Prepared:
        from iceshelves.connections.certificates import make_client_certificate

        if bool(new.client_cert) != (new.client_key is not None):
            raise InvalidInput(
                "A client certificate comes with its key, and a key with its certificate.",
                code="key_missing",
                hint="Give client_cert and client_key (--certificate and --key), or neither: then both are"
                " made.",
            )
        token = _token(new)
        host, port, trusted = await self._pinned(new, token)
        if new.client_key is not None:
            certificate, key = _plain_pem(new.client_cert), new.client_key
        else:
            made = make_client_certificate(new.name)
            certificate, key = made.certificate, made.key
        access = DirectAccess(certificate=certificate, trusted=trusted)
        proof = Proof(token, new.trust_password) if token or new.trust_password else None
        return Prepared(DIRECT, https_url(host, port), access.model_dump(mode="json"), key, proof)

    async def _pinned(self, new: NewCluster, token: TrustToken | None) -> tuple[str, int, str]:
        """Host, port and the certificate (PEM) that the server has to show."""
        from iceshelves.connections.certificates import fingerprint

        if token is not None and not new.endpoint_url:
            found = await self._outside.find_server(token)
            return found.host, found.port, found.certificate
        host, port = reaching.api_address(new.endpoint_url)
        given = new.server_certificate.strip()
        if _CERTIFICATE in given:
            return host, port, _plain_pem(given)
        named = certificate_fingerprint(given, new.provider) if given else ""
        expected = named or (token.fingerprint if token else "")
        await self._outside.addresses(host, port)
        shown = await self._outside.certificate(host, port)
        where = f"{host}:{port}"
        if not expected:
            compare = f"{client_of(new.provider)} info | grep fingerprint"
            raise _nobody_vouches(where, "certificate", fingerprint(shown), compare)
        if fingerprint(shown) != expected:
            raise differs(where, expected, fingerprint(shown))
        return host, port, shown

    async def _shown_certificate(self, wanted: ClusterAddress) -> Shown:
        from iceshelves.connections.certificates import fingerprint, not_after

        host, port = reaching.api_address(wanted.endpoint_url)
        await self._outside.addresses(host, port)
        pem = await self._outside.certificate(host, port)
        return Shown(host, port, "certificate", fingerprint(pem), value=pem, not_after=not_after(pem))

    async def _ssh(self, new: NewCluster) -> Prepared:
        from iceshelves.connections import ssh_keys

        address = ssh_address_of(new)
        key, public, comment = new.ssh_key, "", f"iceshelves-{new.name}"
        if new.ssh_auth == "key" and key is not None:
            public = ssh_keys.public_key_of(key, comment)
        elif new.ssh_auth == "key":
            made = ssh_keys.make_key_pair(comment)
            key, public = made.private, made.public
        elif key is not None:
            raise InvalidInput(
                "An ssh-agent keeps its keys itself.",
                code="field_without_effect",
                hint="Leave ssh_key out, or use ssh_auth 'key'.",
            )
        hops: list[Hop] = []
        for host, user, port, given in way_of(new, address, new.ssh_host_key):
            look = SshLook((*reaching.ssh_hops(hops), SshHop(host, user, "", port)), key)
            host_key = await self._host_key(look, given)
            hops.append(Hop(host=host, user=user, port=port, host_key=host_key))
        access = SshAccess(hops=tuple(hops), auth=new.ssh_auth, public_key=public)
        return Prepared(SSH, address.to_url(), access.model_dump(mode="json"), key)

    async def _host_key(self, look: SshLook, given: str) -> str:
        """The host key line that ``given`` (a line, a fingerprint or nothing) stands for."""
        from iceshelves.connections.ssh_keys import fingerprint

        if line := host_key_line(given):
            fingerprint(line)  # refuses what is none
            return line
        if given and not given.startswith("SHA256:"):
            raise InvalidInput(
                "This is neither a host key nor its fingerprint.",
                code="invalid_host_key",
                hint="Give the line of a file in /etc/ssh/ssh_host_*_key.pub, or SHA256:… of it.",
            )
        target = look.way[-1]
        where = f"{target.host}:{target.port}"
        await self._outside.addresses(look.way[0].host, look.way[0].port)
        try:
            shown = await self._outside.host_key(look)
        except IceShelvesError as error:
            if len(look.way) == 1:
                raise
            raise InvalidInput(
                f"The host key of {where} cannot be looked at through the jump hosts yet: {error.message}",
                code="host_key_needed",
                hint="Read it on that machine, and give it in full: cat /etc/ssh/ssh_host_ed25519_key.pub",
                details={"where": where, "kind": "host_key", "hop": len(look.way) - 1},
            ) from error
        found = fingerprint(shown)
        if not given:
            raise _nobody_vouches(where, "host_key", found, _COMPARE_HOST_KEY, hop=len(look.way) - 1)
        if found != given.rstrip("="):
            raise differs(where, given, found)
        return shown

    async def _shown_host_keys(self, wanted: ClusterAddress) -> tuple[Shown, ...]:
        """The first server's key.  Those behind it can be seen only once it lets us in."""
        from iceshelves.connections.ssh_keys import fingerprint

        found: list[Shown] = []
        for host, user, port, _ in way_of(wanted, ssh_address_of(wanted), ""):
            if found:
                reason = f"It can be seen only through {found[0].host}, which does not know us yet."
                found.append(Shown(host, port, "host_key", reason=reason))
                continue
            await self._outside.addresses(host, port)
            line = await self._outside.host_key(SshLook((SshHop(host, user, "", port),)))
            found.append(Shown(host, port, "host_key", fingerprint(line), value=line))
        return tuple(found)


def prepare_here(new: NewCluster) -> Prepared:
    """The same for the methods that ask nothing of the network."""
    method = method_of(new.connection_method)
    if method in (DIRECT, SSH) or (new.provider == "fake" and method not in (SOCKET, AGENT)):
        raise InvalidInput(
            f"A cluster of the family {new.provider} cannot be added over {method!r} like this.",
            code="unsupported_connection",
            hint="The fake is reached by 'unix-socket' with the address fake://NAME.",
        )
    check_fields(new, method)
    if method == AGENT and new.endpoint_url:
        raise InvalidInput(
            "A cluster that an agent reaches has no address: the agent comes to us.",
            code="field_without_effect",
            hint="Leave the address out.",
        )
    address = new.endpoint_url
    if method == SOCKET and new.provider != "fake":
        address = checked_socket(address or usual_socket(new.provider))
    return Prepared(method, address)


def differs(where: str, expected: str, found: str) -> Denied:
    """Somebody vouched for another key than the one that is shown."""
    return Denied(
        f"{where} shows another fingerprint: expected {expected}, found {found}.",
        code="fingerprint_differs",
        hint="Compare on the machine itself. If neither is wrong there, somebody stands in between.",
        details={"expected": expected, "found": found},
    )


def _plain_pem(text: str) -> str:
    """The certificate in ``text`` and nothing else.  Raises :class:`InvalidInput` ``invalid_certificate``."""
    from iceshelves.connections.certificates import to_der

    return ssl.DER_cert_to_PEM_cert(to_der(text))


def _nobody_vouches(where: str, kind: str, found: str, compare: str, hop: int = 0) -> InvalidInput:
    flag = {"certificate": "--fingerprint", "host_key": "--host-key"}[kind]
    field_name = {"certificate": "server_certificate", "host_key": "ssh_host_key"}[kind]
    return InvalidInput(
        f"{where} shows {found}, and nobody has vouched for it yet.",
        code="fingerprint_needed",
        hint=f"Compare it on that machine ({compare}); if it is the same, repeat with {flag} {found}",
        details={"found": found, "where": where, "kind": kind, "flag": flag, "field": field_name, "hop": hop},
    )


def _token(new: NewCluster) -> TrustToken | None:
    if new.trust_token is None:
        return None
    if new.trust_password is not None:
        raise InvalidInput(
            "A token needs no password.", code="field_without_effect", hint="Give one of the two."
        )
    from iceshelves.providers.incus.trust import read_token

    return read_token(new.trust_token.reveal())
