"""The server's own TLS: a certificate that it was given, or one that it makes for itself and keeps.

Stock clients of the image registry speak HTTPS only.  What is self-signed they have to pin, so it is made
once and stays.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from iceshelves.core.errors import InvalidInput

if TYPE_CHECKING:
    from cryptography import x509

_DAYS: Final = 3650
_LONGEST_NAME: Final = 64


@dataclass(frozen=True, slots=True)
class Tls:
    """A certificate, with those that vouch for it, and its key: files in PEM."""

    certificate: Path
    key: Path


def checked(tls: Tls) -> Tls:
    """``tls`` if a server can be run with it.  Raises :class:`InvalidInput` ``invalid_certificate``."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.certificate, tls.key)
    except (OSError, ssl.SSLError) as error:
        raise InvalidInput(
            f"{tls.certificate} and {tls.key} are no certificate with its key: {error.strerror or error}.",
            code="invalid_certificate",
            hint="Give both in PEM: --tls-certificate FILE --tls-key FILE",
        ) from error
    return tls


def own(folder: Path, host: str) -> Tls:
    """The certificate that is kept in ``folder``, made at the first call for this machine and ``host``."""
    tls = Tls(folder / "server.crt", folder / "server.key")
    if not tls.certificate.exists():
        certificate, key = _make([*_names(host)])
        _write(tls.key, key, 0o600)
        _write(tls.certificate, certificate, 0o644)
    return checked(tls)


def _names(host: str) -> list[str]:
    """What clients may call the server: where it listens, and this machine's names and addresses."""
    names = {"localhost", "127.0.0.1", "::1", socket.gethostname(), socket.getfqdn()}
    with contextlib.suppress(OSError):  # a machine that does not know its own name
        names.update(str(found[4][0]) for found in socket.getaddrinfo(socket.gethostname(), None))
    if host not in ("0.0.0.0", "::"):  # noqa: S104  (listening there is the operator's choice)
        names.add(host)
    return sorted(name.partition("%")[0] for name in names if name)


def _make(names: list[str]) -> tuple[bytes, bytes]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    common = f"iceshelves {socket.gethostname()}"[:_LONGEST_NAME]
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=_DAYS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), pem


def _general(name: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write(path: Path, content: bytes, mode: int) -> None:
    unfinished = path.with_suffix(".new")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
    unfinished.rename(path)
