"""A hypervisor outside, for tests of adding, testing and re-keying: what it shows, and whom it trusts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from iceshelves.clusters.outside import Proof, SshLook, unreachable
from iceshelves.connections.certificates import fingerprint, make_client_certificate
from iceshelves.connections.ssh_keys import make_key_pair, public_key_of
from iceshelves.connections.values import HypervisorConnection, SshSocket, TlsApi
from iceshelves.core.errors import Denied, IceShelvesError, InvalidInput, Temporary
from iceshelves.providers.incus.trust import FoundServer

if TYPE_CHECKING:
    from iceshelves.providers.incus.trust import TrustToken


def host_key() -> str:
    """A new one, as in known_hosts without the host."""
    return " ".join(make_key_pair("x").public.split()[:2])


@dataclass
class FakeOutside:
    """One host called ``hv``, and jump hosts that are there as far as ``host_keys`` has them.

    ``failing`` maps a method's name to the error that it raises once.
    """

    server_certificate: str = field(default_factory=lambda: make_client_certificate("server").certificate)
    host_keys: dict[str, str] = field(default_factory=lambda: {"hv": host_key()})
    trusted: set[str] = field(default_factory=set)
    authorized: set[str] = field(default_factory=set)
    token: str = ""
    password: str = ""
    may_add: bool = True
    failing: dict[str, BaseException] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def _called(self, name: str) -> None:
        self.asked.append(name)
        error = self.failing.pop(name, None)
        if error is not None:
            raise error

    async def addresses(self, host: str, port: int) -> Sequence[str]:
        del port
        self._called("addresses")
        if host not in self.host_keys:
            raise InvalidInput(f"The name {host} is not known here.", code="host_unknown", hint="x")
        return ("192.0.2.1",)

    async def reach(self, host: str, port: int) -> None:
        self._called("reach")
        if port == 1:
            raise unreachable(host, port, ConnectionRefusedError(111, "refused"))

    async def certificate(self, host: str, port: int) -> str:
        del host, port
        self._called("certificate")
        return self.server_certificate

    async def find_server(self, token: TrustToken) -> FoundServer:
        self._called("find_server")
        assert token.fingerprint == fingerprint(self.server_certificate)
        return FoundServer("hv", 8443, self.server_certificate)

    async def host_key(self, look: SshLook) -> str:
        self._called("host_key")
        if len(look.way) > 1:
            self._let_in(look.key)
        return self.host_keys[look.way[-1].host]

    async def trusts(self, connection: HypervisorConnection) -> bool:
        self._called("trusts")
        if isinstance(connection, SshSocket):
            self._let_in(connection.key)
            return True
        assert isinstance(connection, TlsApi)
        self._check_pin(connection)
        return fingerprint(connection.certificate) in self.trusted

    async def join(self, connection: TlsApi, name: str, proof: Proof) -> None:
        assert name.startswith("iceshelves-")
        self._called("join")
        self._check_pin(connection)
        if proof.token is not None:
            if proof.token.text.reveal() != self.token:
                raise Denied("The token was used.", code="token_refused")
            self.token = ""
        elif proof.password is None or proof.password.reveal() != self.password:
            raise Denied("Wrong password.", code="password_refused")
        self.trusted.add(fingerprint(connection.certificate))

    async def add_certificate(self, connection: TlsApi, certificate: str) -> None:
        self._called("add_certificate")
        self._need_trust(connection)
        if not self.may_add:
            raise Denied("The hypervisor refused: not authorized", code="hypervisor_denied")
        self.trusted.add(fingerprint(certificate))

    async def retire_certificate(self, connection: TlsApi, fingerprint: str) -> None:
        self._called("retire_certificate")
        self._need_trust(connection)
        self.trusted.discard(fingerprint)

    def _need_trust(self, connection: TlsApi) -> None:
        self._check_pin(connection)
        if fingerprint(connection.certificate) not in self.trusted:
            raise Denied("not trusted", code="hypervisor_denied")

    def _check_pin(self, connection: TlsApi) -> None:
        if connection.trusted.strip() != self.server_certificate.strip():
            raise Denied("changed", code="certificate_changed")

    def _let_in(self, key: object) -> None:
        if key is None:
            return
        public = public_key_of(key, "x").split()[1]  # type: ignore[arg-type]
        if public not in {line.split()[1] for line in self.authorized}:
            raise Denied("refused", code="ssh_denied", hint="authorized_keys")


def away() -> IceShelvesError:
    """Nobody answers."""
    return Temporary("nobody answers", code="hypervisor_unreachable")
