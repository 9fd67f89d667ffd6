"""The HTTPS API of a host's daemon: made to listen, tokens and passwords handed out, its certificate changed.

All by the hypervisor's own command line and files, so that what is under test has no part in it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from iceshelves.connections.certificates import ClientCertificate, make_client_certificate
from iceshelves.connections.values import TlsApi
from testbed.certificates import Made
from testbed.hosts import INCUS, Host

PORT: Final = 8443


@dataclass(frozen=True)
class Https:
    """The daemon of ``host``, which listens on the host's address."""

    host: Host

    @classmethod
    def of(cls, host: Host) -> Https:
        """Have the daemon of ``host`` listen."""
        https = cls(host)
        host.cli("config", "set", f"core.https_address={https.address}:{PORT}")
        return https

    @property
    def address(self) -> str:
        cable = self.host.cable
        assert cable is not None
        return cable.address

    @property
    def certificate(self) -> str:
        """The server's certificate (PEM), as the daemon itself tells it over its socket."""
        server = json.loads(self.host.cli("query", "/1.0").stdout)
        return str(server["environment"]["certificate"])

    def token(self, name: str, *restriction: str) -> str:
        """A new token for a client called ``name``."""
        named = (name,) if self.host.hypervisor is INCUS else ("--name", name)
        return self.host.cli("config", "trust", "add", *named, *restriction, "--quiet").stdout.split()[-1]

    def set_password(self, password: str) -> None:
        """Let everybody in who knows ``password``; LXD only."""
        self.host.cli("config", "set", f"core.trust_password={password}")

    def add_by_hand(self, certificate: str, name: str, *restriction: str) -> None:
        """Have the daemon trust ``certificate`` (PEM)."""
        file = self.host.root / "client.crt"
        file.write_text(certificate)
        verb = "add-certificate" if self.host.hypervisor is INCUS else "add"
        self.host.cli("config", "trust", verb, str(file), "--name", name, *restriction)

    def trusted(self) -> dict[str, str]:
        """Fingerprints of the clients that the daemon trusts, and their names."""
        listed = json.loads(self.host.cli("config", "trust", "list", "--format", "json").stdout)
        return {entry["fingerprint"]: entry["name"] for entry in listed}

    def connection(self, client: ClientCertificate, project: str = "default") -> TlsApi:
        """To this daemon as ``client``, who need not be trusted."""
        return TlsApi(
            self.address, PORT, client.certificate, client.key, self.certificate, project, image_servers=()
        )

    def joined(self, name: str, *restriction: str) -> TlsApi:
        """To this daemon as a new client, trusted under ``name``."""
        client = make_client_certificate(name)
        self.add_by_hand(client.certificate, name, *restriction)
        return self.connection(client)

    def show(self, made: Made) -> None:
        """Have the daemon show ``made``'s certificate from now on."""
        folder = self.host.daemon_directory
        (folder / "server.crt").write_text(made.pem)
        (folder / "server.key").write_text(made.key_pem)
        self.host.restart_daemon()

    def renew(self) -> None:
        """Have the daemon make itself a new certificate, as its documentation says."""
        for name in ("server.crt", "server.key"):
            (self.host.daemon_directory / name).unlink()
        self.host.restart_daemon()
