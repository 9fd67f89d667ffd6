"""Certificates for servers in tests: signed by themselves or by an authority, of any time and name."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Made:
    """A certificate with its key."""

    signed: x509.Certificate
    private: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> str:
        return self.signed.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def key_pem(self) -> str:
        return self.private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()


@dataclass(frozen=True)
class Order:
    """What a certificate is to be: for how many days from which one on, counted from now, and for whom."""

    name: str = "server"
    hosts: tuple[str, ...] = ()
    from_day: int = -1
    to_day: int = 3650
    authority: bool = False


def make(order: Order, signer: Made | None = None) -> Made:
    """The certificate of ``order``, signed by ``signer`` or by itself."""
    private = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, order.name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer.signed.subject if signer else subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=order.from_day))
        .not_valid_after(now + timedelta(days=order.to_day))
        .add_extension(x509.BasicConstraints(ca=order.authority, path_length=None), critical=True)
    )
    if order.hosts:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([_name(host) for host in order.hosts]), critical=False
        )
    return Made(builder.sign(signer.private if signer else private, hashes.SHA256()), private)


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
