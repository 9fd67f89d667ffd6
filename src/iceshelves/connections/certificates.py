"""Certificates: making our clients', reading anybody's, and looking at the one that a server shows.

cryptography's X.509 part takes 4.6 MB and is needed for making alone, so it is imported there; what is read
is checked by OpenSSL first, through ``ssl``.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from iceshelves.connections.tls_errors import https_address, is_not_tls, no_host, unreachable
from iceshelves.core.errors import InvalidInput
from iceshelves.core.secret import Secret

#: days; as long as the hypervisors' own clients make theirs
CLIENT_DAYS: Final = 3650
#: a hypervisor whose clock is behind ours must not take a new certificate for one of the future
_CLOCKS_APART: Final = timedelta(days=1)
_LONGEST_NAME: Final = 64
_UTC_TIME: Final = 0x17


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A certificate (PEM) and its private key (PEM, PKCS #8)."""

    certificate: str
    key: Secret


def make_client_certificate(cluster: str, days: int = CLIENT_DAYS) -> ClientCertificate:
    """A new key on P-256 with a self-signed certificate, called ``iceshelves-<cluster>``."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    # X.520 gives a common name 64 characters.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"iceshelves-{cluster}"[:_LONGEST_NAME])])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCKS_APART)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return ClientCertificate(
        certificate.public_bytes(serialization.Encoding.PEM).decode(), Secret(pem.decode())
    )


def to_der(certificate: str) -> bytes:
    """The one certificate in ``certificate`` (PEM).  Raises :class:`InvalidInput` ``invalid_certificate``."""
    try:
        if certificate.count("-----BEGIN") != 1:
            raise ValueError("none, or a chain")
        der = ssl.PEM_cert_to_DER_cert(certificate.strip())
        _opened(der)
    except (ValueError, ssl.SSLError) as error:
        raise InvalidInput(
            "This is not a certificate.",
            code="invalid_certificate",
            hint="Give one certificate in PEM: from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----",
        ) from error
    return der


def fingerprint(certificate: str | bytes) -> str:
    """SHA-256 of ``certificate`` (PEM, or DER as bytes) in hex, as Incus and LXD print it."""
    return hashlib.sha256(certificate if isinstance(certificate, bytes) else to_der(certificate)).hexdigest()


def is_authority(certificate: str) -> bool:
    """Whether ``certificate`` (PEM) may sign others, as OpenSSL sees it."""
    return _opened(to_der(certificate)).cert_store_stats()["x509_ca"] > 0


def not_after(certificate: str) -> datetime:
    """The moment after which ``certificate`` (PEM) is void."""
    return _end_of_validity(to_der(certificate))


async def fetch_certificate(host: str, port: int, deadline: float) -> str:
    """The certificate (PEM) that the server at ``host`` shows within ``deadline`` seconds; it is not trusted.

    Nothing is sent but the handshake, without a certificate of ours.  Raises :class:`Failed` ``no_tls``,
    :class:`Temporary` ``hypervisor_unreachable`` and :class:`InvalidInput` ``invalid_connection``.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    where = https_address(host, port)
    try:
        async with asyncio.timeout(deadline):
            _, writer = await asyncio.open_connection(
                host, port, ssl=context, server_hostname=host, ssl_shutdown_timeout=1.0
            )
    except (ConnectionResetError, ssl.SSLEOFError) as error:
        raise unreachable(where, ConnectionResetError(errno.ECONNRESET, ""), deadline) from error
    except ssl.SSLError as error:
        raise is_not_tls(where, error) from error
    except (OSError, TimeoutError) as error:
        raise unreachable(where, error, deadline) from error
    except ValueError as error:
        raise no_host(where) from error
    try:
        return ssl.DER_cert_to_PEM_cert(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
    finally:
        writer.transport.abort()


def _opened(der: bytes) -> ssl.SSLContext:
    """A context that holds ``der`` alone.  Raises ``ssl.SSLError`` where that is no certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=der)
    return context


def _end_of_validity(der: bytes) -> datetime:
    """Read RFC 5280, 4.1: Certificate.tbsCertificate.validity.notAfter of what OpenSSL has found sound."""
    certificate, _, _ = _inside(der, 0)
    at, _, _ = _inside(der, certificate)
    if der[at] == 0xA0:  # the version, which the first one leaves out
        at = _inside(der, at)[1]
    for _ in ("serialNumber", "signature", "issuer"):
        at = _inside(der, at)[1]
    validity, _, _ = _inside(der, at)
    start, end, kind = _inside(der, _inside(der, validity)[1])
    text = der[start:end].decode("ascii")
    if kind == _UTC_TIME:  # RFC 5280, 4.1.2.5.1: two digits, 50 to 99 being of the last century
        text = ("19" if text >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _inside(der: bytes, at: int) -> tuple[int, int, int]:
    """Where the content of the value at ``at`` starts and ends, and its tag."""
    length, start = der[at + 1], at + 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(der[at + 2 : start])
    return start, start + length, der[at]
