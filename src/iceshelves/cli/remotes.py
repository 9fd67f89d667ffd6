"""The registry as a remote of a stock client: what somebody pastes into a shell to add it.

Stock clients read image servers by HTTPS only.  ``remote add --accept-certificate`` has no effect for them
(Incus 6.0.4, LXD 5.0.2): a certificate that no known authority has signed is pinned by a file beside the
client's configuration.
"""

from __future__ import annotations

import shlex
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from iceshelves.core.errors import Failed, Temporary

_DEADLINE: Final = 10.0
#: where Go's crypto/x509, and so incus and lxc, look for authorities on Linux; the first that there is
_AUTHORITIES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


@dataclass(frozen=True, slots=True)
class Program:
    """A stock client: its command, and its configuration's folder as its shell knows it."""

    command: str
    configuration: str


PROGRAMS: Final[Mapping[str, Program]] = {
    "incus": Program("incus", "${INCUS_CONF:-$HOME/.config/incus}"),
    "lxd": Program("lxc", "${LXD_CONF:-$HOME/.config/lxc}"),
}


@dataclass(frozen=True, slots=True)
class Remote:
    """A remote called ``name``; ``certificate`` is the PEM to pin, ``None`` where clients trust it anyway."""

    name: str
    url: str
    certificate: str | None

    def lines(self, program: Program) -> list[str]:
        """What adds it to ``program``."""
        added = f"{program.command} remote add {self.name} {shlex.quote(self.url)} --protocol simplestreams"
        if self.certificate is None:
            return [added]
        folder = f"{program.configuration}/servercerts"
        pinned = [f"cat >\"{folder}/{self.name}.crt\" <<'EOF'", *self.certificate.strip().splitlines(), "EOF"]
        return [added, f'mkdir -p "{folder}"', *pinned]


def certificate_to_pin(url: str) -> str | None:
    """The PEM of what the server at ``url`` shows, unless an authority has signed it that clients here know.

    Only one that our own client trusts is given on.  Raises :class:`Failed` ``certificate_not_trusted`` and
    :class:`Temporary` ``server_unreachable``.
    """
    parts = urlsplit(url)
    place = (parts.hostname or "", parts.port or 443)
    try:
        shown(place, _clients_trust())
    except ssl.SSLCertVerificationError:
        try:
            return ssl.DER_cert_to_PEM_cert(shown(place, ssl.create_default_context()))
        except ssl.SSLCertVerificationError as error:
            raise Failed(
                f"The certificate of {parts.netloc} is not trusted: {error.verify_message}.",
                code="certificate_not_trusted",
                hint="Point SSL_CERT_FILE at the authority that signed it.",
            ) from error
    return None


def shown(place: tuple[str, int], trust: ssl.SSLContext) -> bytes:
    """The certificate that the server at ``place`` shows, in DER, if ``trust`` trusts it.

    Raises :class:`ssl.SSLCertVerificationError`, and :class:`Temporary` ``server_unreachable``.
    """
    try:
        with (
            socket.create_connection(place, _DEADLINE) as connection,
            trust.wrap_socket(connection, server_hostname=place[0]) as secure,
        ):
            return secure.getpeercert(binary_form=True) or b""
    except ssl.SSLCertVerificationError:
        raise
    except OSError as error:
        raise Temporary(
            f"{place[0]}:{place[1]} cannot be reached: {error.strerror or 'connection lost'}.",
            code="server_unreachable",
            hint="Is the server running? Check with 'iceshelves doctor'.",
        ) from error


def _clients_trust() -> ssl.SSLContext:
    """What stock clients on this machine trust: its authorities, whatever SSL_CERT_FILE says to us."""
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bundle = next((path for path in _AUTHORITIES if Path(path).is_file()), None)
    if bundle is not None:
        trust.load_verify_locations(bundle)
    return trust
