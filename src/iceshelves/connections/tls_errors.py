"""What goes wrong before a word of HTTP is spoken over TLS, in a user's words."""

from __future__ import annotations

import os
import ssl
from datetime import datetime
from typing import Final

from iceshelves.core.errors import Denied, Failed, InvalidInput, Temporary

# OpenSSL's verdicts (x509_vfy.h, X509_V_ERR_...).
NOT_YET_VALID: Final = 9
EXPIRED: Final = 10
OTHER_NAME: Final = frozenset({62, 64})  # host name, address
OTHER_ISSUER: Final = frozenset({2, 18, 19, 20, 21, 24})

_ACCEPT: Final = "iceshelves cluster accept-certificate NAME"


def https_address(host: str, port: int) -> str:
    """``https://host:port``, an IPv6 address in its brackets."""
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def is_not_tls(where: str, error: ssl.SSLError) -> Failed:
    """Somebody listens at ``where``, but no handshake came about."""
    return Failed(
        f"What answers at {where} does not speak TLS as we do: {_reason(error)}.",
        code="no_tls",
        hint="Check the port: Incus and LXD use the one of core.https_address, usually 8443.",
    )


def unreachable(where: str, error: BaseException, deadline: float) -> Temporary:
    """Nobody answered at ``where`` within ``deadline`` seconds."""
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, TimeoutError):
        why = f"no answer within {deadline:.0f} s"
    else:
        why = os.strerror(number) if number and number > 0 else str(error) or type(error).__name__
    return Temporary(
        f"The hypervisor at {where} cannot be reached: {why}.",
        code="hypervisor_unreachable",
        hint="Check the address, and that the daemon listens there: incus config get core.https_address"
        " (lxc on LXD)",
        delay=2.0,
    )


def no_host(where: str) -> InvalidInput:
    """What names the host can be none, so that it was not even looked up."""
    return InvalidInput(
        f"{where} is not an address.",
        code="invalid_connection",
        hint="Write https://host.example.org:8443.",
    )


def changed(where: str, expected: str, found: str) -> Denied:
    """The server shows another certificate than the one that is trusted; both by their fingerprints."""
    return Denied(
        f"The certificate of {where} has changed: expected {expected}, found {found}.",
        code="certificate_changed",
        hint="If the hypervisor's certificate was renewed (compare with 'incus info' there), accept it:"
        f" {_ACCEPT}",
        details={"expected": expected, "found": found},
    )


def of_another_authority(where: str, expected: str, found: str) -> Denied:
    """The server's certificate was not signed by the authority that is trusted."""
    return Denied(
        f"The certificate of {where} ({found}) is not signed by the trusted authority ({expected}).",
        code="certificate_authority_unknown",
        hint=f"Have the authority sign the hypervisor's certificate, or trust this very one: {_ACCEPT}",
        details={"expected": expected, "found": found},
    )


def of_another_name(where: str, found: str) -> Denied:
    """The certificate is good, but for somebody else."""
    return Denied(
        f"The certificate of {where} ({found}) is not made out to this name or address.",
        code="certificate_name_mismatch",
        hint="Reach the cluster by a name in its certificate, or have one made for this name.",
        details={"found": found},
    )


def expired(where: str, end: datetime) -> Denied:
    """The server's certificate, or its authority's, is over."""
    return Denied(
        f"The certificate of {where} has expired: it was valid until {_moment(end)}.",
        code="certificate_expired",
        hint=f"Renew it on the hypervisor and restart its daemon, then accept the new one: {_ACCEPT}",
        details={"not_after": end.isoformat()},
    )


def not_yet_valid(where: str) -> Denied:
    """The server's certificate begins in the future."""
    return Denied(
        f"The certificate of {where} is not valid yet.",
        code="certificate_not_yet_valid",
        hint="Compare the clocks of this machine and of the hypervisor.",
    )


def unusable(where: str, error: ssl.SSLCertVerificationError) -> Denied:
    """OpenSSL refuses the certificate for a reason of its own, such as a weak key."""
    return Denied(
        f"The certificate of {where} cannot be used: {error.verify_message}.",
        code="certificate_unusable",
        hint="Have the hypervisor make a new one: remove server.crt and server.key, restart its daemon.",
    )


def our_own_expired(where: str, end: datetime) -> Denied:
    """Our client certificate is over; the server would not have it."""
    return Denied(
        f"Our client certificate for {where} has expired: it was valid until {_moment(end)}.",
        code="client_certificate_expired",
        hint="iceshelves cluster rotate NAME",
        details={"not_after": end.isoformat()},
    )


def _moment(end: datetime) -> str:
    return f"{end:%Y-%m-%d %H:%M} UTC"


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).lower().replace("_", " ")
