"""Making and reading certificates; cryptography's own reader is the witness."""

from __future__ import annotations

import hashlib
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from iceshelves.connections.certificates import (
    fingerprint,
    is_authority,
    make_client_certificate,
    not_after,
    to_der,
)
from iceshelves.core.errors import InvalidInput
from testbed.certificates import Made, Order, make


def test_a_clients_certificate_is_for_clients_and_lasts_ten_years() -> None:
    made = make_client_certificate("north")
    signed = x509.load_pem_x509_certificate(made.certificate.encode())
    key = serialization.load_pem_private_key(made.key.reveal().encode(), None)
    assert signed.subject.rfc4514_string() == "CN=iceshelves-north"
    assert key.public_key() == signed.public_key()
    assert signed.not_valid_before_utc < datetime.now(UTC) - timedelta(hours=12)
    assert 3649 <= (signed.not_valid_after_utc - datetime.now(UTC)).days <= 3650
    usage = signed.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not is_authority(made.certificate)
    assert "BEGIN" not in repr(made).split("key=")[1]


def test_the_longest_name_of_a_cluster_fits() -> None:
    made = make_client_certificate("n" * 63, days=2)
    signed = x509.load_pem_x509_certificate(made.certificate.encode())
    assert signed.subject.rfc4514_string() == "CN=iceshelves-" + "n" * 53
    assert signed.not_valid_after_utc - datetime.now(UTC) < timedelta(days=2)


def test_a_fingerprint_is_sha_256_of_the_encoded_certificate() -> None:
    made = make(Order())
    der = made.signed.public_bytes(serialization.Encoding.DER)
    assert to_der(f"\n {made.pem}\n") == der
    assert fingerprint(made.pem) == fingerprint(der) == hashlib.sha256(der).hexdigest()


@pytest.mark.parametrize("days", [1, 3650, 9000, 20000])  # 2049 is the last year of the short form
def test_the_end_is_read(days: int) -> None:
    made = make(Order(name="é" * 32, hosts=tuple(f"h{n}.example.org" for n in range(40)), to_day=days))
    assert not_after(made.pem) == made.signed.not_valid_after_utc


def test_an_authority_is_known() -> None:
    authority = make(Order(authority=True))
    assert is_authority(authority.pem)
    assert not is_authority(make(Order(), signer=authority).pem)


def _chain(made: Made) -> str:
    return made.pem + make(Order()).pem


def _cut(made: Made) -> str:
    return ssl.DER_cert_to_PEM_cert(to_der(made.pem)[:-40])


@pytest.mark.parametrize("spoil", [_chain, _cut, lambda made: made.key_pem, lambda _: "", lambda _: "é"])
def test_what_is_no_certificate_is_refused(spoil: object) -> None:
    assert callable(spoil)
    for reader in (to_der, is_authority, not_after, fingerprint):
        with pytest.raises(InvalidInput) as caught:
            reader(spoil(make(Order())))
        assert caught.value.code == "invalid_certificate"
