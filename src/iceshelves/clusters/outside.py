"""What adding, testing and re-keying a cluster ask of the machines outside, in one place.

What is behind it (certificates, SSH, the trust store) is large, so it is imported when it is first needed.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from iceshelves.connections.values import HypervisorConnection, SshHop, TlsApi
from iceshelves.core.errors import InvalidInput, Temporary
from iceshelves.core.secret import Secret

if TYPE_CHECKING:
    from iceshelves.providers.incus.client import Client
    from iceshelves.providers.incus.trust import FoundServer, TrustToken

#: seconds for each answer
DEADLINE: Final = 5.0
_REMEDIES: Final = {
    errno.ECONNREFUSED: (
        "Nobody listens there. Incus: incus config set core.https_address :8443 (lxc on LXD);"
        " for ssh, start sshd; and check the port."
    ),
    errno.ETIMEDOUT: "Something on the way drops the packets: check the address, the route and firewalls.",
    errno.EHOSTUNREACH: "No machine has this address here: check it, and the route to it.",
}


@dataclass(frozen=True, slots=True)
class SshLook:
    """An SSH server to look at: the last of ``way``, behind those before it, which let ``key`` in."""

    way: tuple[SshHop, ...]
    key: Secret | None = None


@dataclass(frozen=True, slots=True)
class Proof:
    """Why a hypervisor should trust us: the token that it made, or its trust password."""

    token: TrustToken | None = None
    password: Secret | None = None


class Outside(Protocol):
    """The other machines.  All raise from the one error tree."""

    async def addresses(self, host: str, port: int) -> Sequence[str]:
        """The addresses of ``host``.  Raises :class:`InvalidInput` ``host_unknown``."""
        ...

    async def reach(self, host: str, port: int) -> None:
        """Connect by TCP and hang up.  Raises :class:`Temporary` ``hypervisor_unreachable``."""
        ...

    async def certificate(self, host: str, port: int) -> str:
        """The certificate (PEM) that the server shows; it is not trusted."""
        ...

    async def find_server(self, token: TrustToken) -> FoundServer:
        """The server that made ``token``, at the first of its addresses that answers."""
        ...

    async def host_key(self, look: SshLook) -> str:
        """The host key that an SSH server shows, as in known_hosts without the host."""
        ...

    async def trusts(self, connection: HypervisorConnection) -> bool:
        """Whether the daemon trusts us over ``connection``.  Raises what the connection does."""
        ...

    async def join(self, connection: TlsApi, name: str, proof: Proof) -> None:
        """Have the daemon trust the certificate of ``connection``, under ``name``."""
        ...

    async def add_certificate(self, connection: TlsApi, certificate: str) -> None:
        """Have the daemon trust ``certificate`` (PEM) with the rights that ours has."""
        ...

    async def retire_certificate(self, connection: TlsApi, fingerprint: str) -> None:
        """Have the daemon trust a certificate no longer."""
        ...


class RealOutside:
    """See :class:`Outside`."""

    async def addresses(self, host: str, port: int) -> Sequence[str]:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(DEADLINE):
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError, TimeoutError) as error:
            raise InvalidInput(
                f"The name {host} is not known here.",
                code="host_unknown",
                hint="Check the spelling and this server's DNS, or give the address itself.",
            ) from error
        return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))

    async def reach(self, host: str, port: int) -> None:
        try:
            async with asyncio.timeout(DEADLINE):
                _, writer = await asyncio.open_connection(host, port)
        except (OSError, TimeoutError) as error:
            raise unreachable(host, port, error) from error
        writer.transport.abort()

    async def certificate(self, host: str, port: int) -> str:
        from iceshelves.connections.certificates import fetch_certificate

        return await fetch_certificate(host, port, DEADLINE)

    async def find_server(self, token: TrustToken) -> FoundServer:
        from iceshelves.providers.incus import trust

        return await trust.find_server(token)

    async def host_key(self, look: SshLook) -> str:
        from iceshelves.connections.ssh_keys import Login, scan_host_key

        target = look.way[-1]
        return await scan_host_key(look.way[:-1], target.host, target.port, DEADLINE, Login(look.key))

    async def trusts(self, connection: HypervisorConnection) -> bool:
        from iceshelves.providers.incus import trust

        async with _client(connection) as client:
            return await trust.is_trusted(client)

    async def join(self, connection: TlsApi, name: str, proof: Proof) -> None:
        from iceshelves.providers.incus import trust

        async with _client(connection) as client:
            if proof.token is not None:
                await trust.join_by_token(client, proof.token)
            elif proof.password is not None:
                await trust.join_by_password(client, proof.password, name)

    async def add_certificate(self, connection: TlsApi, certificate: str) -> None:
        from iceshelves.connections.certificates import fingerprint
        from iceshelves.providers.incus import trust

        async with _client(connection) as client:
            ours = await trust.trust_entry(client, fingerprint(connection.certificate))
            await trust.trust(client, certificate, ours)

    async def retire_certificate(self, connection: TlsApi, fingerprint: str) -> None:
        from iceshelves.providers.incus import trust

        async with _client(connection) as client:
            await trust.retire(client, fingerprint)


@asynccontextmanager
async def _client(connection: HypervisorConnection) -> AsyncIterator[Client]:
    from iceshelves.providers.incus.client import Client

    client = Client(connection)
    try:
        yield client
    finally:
        await client.close()


def unreachable(host: str, port: int, error: BaseException) -> Temporary:
    """Nobody took a TCP connection."""
    number = errno.ETIMEDOUT if isinstance(error, TimeoutError) else getattr(error, "errno", None)
    if number is None:  # asyncio puts what several addresses answered into words
        number = next((code for code in _REMEDIES if os.strerror(code) in str(error)), None)
    why = os.strerror(number) if number else str(error) or type(error).__name__
    return Temporary(
        f"{host} port {port} cannot be reached: {why}.",
        code="hypervisor_unreachable",
        hint=_REMEDIES.get(number or 0, "Check the address, the route to it, and the firewalls."),
        delay=2.0,
    )
