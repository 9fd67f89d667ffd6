"""A daemon's HTTPS API, with a client certificate of ours and one trusted certificate for the server.

Where the trusted one is the server's own, the server must show that very certificate; what names are in it
does not matter.  Where it is an authority's, the server's must be signed by it and made out to the host.
"""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from aiohttp.client_proto import ResponseHandler

from iceshelves.connections import tls_errors
from iceshelves.connections.certificates import (
    fetch_certificate,
    fingerprint,
    is_authority,
    not_after,
    to_der,
)
from iceshelves.connections.transport import Factory
from iceshelves.connections.values import TlsApi
from iceshelves.core.errors import Denied, InvalidInput

#: seconds for a second look at a certificate that was refused; the whole dial has its own deadline
_LOOK_DEADLINE: Final = 3.0
#: seconds for a farewell; a daemon that is gone gives none
_FAREWELL: Final = 1.0
#: seconds after which both ends prove again who they are
_SESSION_LIFE: Final = 600.0


class _Resuming(ssl.SSLContext):
    """Takes up the last session again, which spares a third of a handshake; ``wrap_bio`` is what loops call.

    After :data:`_SESSION_LIFE` it is begun anew, so that a certificate that ends or changes is seen.
    """

    _last: ssl.SSLObject | None = None
    _begun: float = 0.0

    def settled(self, connection: ssl.SSLObject) -> None:
        """Both ends of ``connection`` are content; what it is given later counts too."""
        if not connection.session_reused:
            self._begun = time.monotonic()
        self._last = connection

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        return super().wrap_bio(
            incoming, outgoing, server_side, server_hostname, session or self._session_to_take_up()
        )

    def _session_to_take_up(self) -> ssl.SSLSession | None:
        if self._last is None or time.monotonic() - self._begun > _SESSION_LIFE:
            return None
        session = self._last.session
        return session if session is not None and session.has_ticket else None


@dataclass(frozen=True, slots=True)
class _Terms:
    """How the two ends prove who they are, and when our proof ends.

    ``pin`` is the only certificate (DER) that the server may show; ``None`` where an authority vouches.
    """

    context: _Resuming
    pin: bytes | None
    ours_ends: datetime


class TlsTransport:
    """See :class:`~iceshelves.connections.transport.Transport`."""

    def __init__(self, connection: TlsApi) -> None:
        self.where = tls_errors.https_address(connection.host, connection.port)
        self._connection = connection
        self._terms: _Terms | None = None

    async def dial(self, factory: Factory) -> ResponseHandler:
        """Connect and shake hands.

        Raises :class:`Denied` where a certificate is refused (:mod:`~iceshelves.connections.tls_errors` has
        the codes), :class:`InvalidInput` where ours or the trusted one is none, :class:`Failed` ``no_tls``,
        :class:`Temporary`, and ``OSError``.
        """
        terms = self._terms = self._terms or _first_terms(self._connection)
        if terms.ours_ends <= datetime.now(UTC):
            raise tls_errors.our_own_expired(self.where, terms.ours_ends)
        try:
            return await self._shake_hands(factory, terms)
        except ssl.SSLCertVerificationError as refused:
            # OpenSSL does not hand out what it refuses, so the server is asked to show it again.
            shown = await fetch_certificate(self._connection.host, self._connection.port, _LOOK_DEADLINE)
            if terms.pin is None and to_der(shown) == to_der(self._connection.trusted):
                # The server's own is an authority's, as 'openssl req -x509' makes them: names do not matter.
                self._terms = _agree(self._connection, to_der(shown))
                return await self.dial(factory)
            raise self._verdict(terms, refused, shown) from refused

    async def close(self) -> None:
        """Certificates are read anew by a later :meth:`dial`."""
        self._terms = None

    async def _shake_hands(self, factory: Factory, terms: _Terms) -> ResponseHandler:
        try:
            transport, protocol = await asyncio.get_running_loop().create_connection(
                factory,
                self._connection.host,
                self._connection.port,
                ssl=terms.context,
                server_hostname=self._connection.host,
                ssl_shutdown_timeout=_FAREWELL,
            )
        except ssl.SSLCertVerificationError:
            raise
        except (ConnectionResetError, ssl.SSLEOFError) as error:
            # for an end of the stream within the handshake; neither has the system's number
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)) from error
        except ssl.SSLError as error:
            raise tls_errors.is_not_tls(self.where, error) from error
        except ValueError as error:
            raise tls_errors.no_host(self.where) from error
        connection = transport.get_extra_info("ssl_object")
        shown = connection.getpeercert(binary_form=True)
        if terms.pin is not None and shown != terms.pin:
            transport.abort()
            raise tls_errors.changed(self.where, fingerprint(terms.pin), fingerprint(shown))
        terms.context.settled(connection)
        return protocol

    def _verdict(self, terms: _Terms, refused: ssl.SSLCertVerificationError, shown: str) -> Denied:
        why, trusted = refused.verify_code, self._connection.trusted
        if why == tls_errors.EXPIRED:
            return tls_errors.expired(self.where, min(not_after(shown), not_after(trusted)))
        if why == tls_errors.NOT_YET_VALID:
            return tls_errors.not_yet_valid(self.where)
        if why in tls_errors.OTHER_NAME:
            return tls_errors.of_another_name(self.where, fingerprint(shown))
        if terms.pin is None and why in tls_errors.OTHER_ISSUER:
            return tls_errors.of_another_authority(self.where, fingerprint(trusted), fingerprint(shown))
        if terms.pin is not None and to_der(shown) != terms.pin:
            return tls_errors.changed(self.where, fingerprint(terms.pin), fingerprint(shown))
        return tls_errors.unusable(self.where, refused)


def _first_terms(connection: TlsApi) -> _Terms:
    return _agree(connection, None if is_authority(connection.trusted) else to_der(connection.trusted))


def _agree(connection: TlsApi, pin: bytes | None) -> _Terms:
    """The terms with ``pin``.  Raises :class:`InvalidInput` where a certificate or our key is none."""
    context = _Resuming(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = pin is None
    # Lets a certificate that is not signed by itself be trusted as it is.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=to_der(connection.trusted))
    _show(context, connection)
    return _Terms(context, pin, not_after(connection.certificate))


def _show(context: ssl.SSLContext, connection: TlsApi) -> None:
    """Have ``context`` show our certificate.  OpenSSL reads keys from files only; this one is in memory."""
    file = os.memfd_create("client-certificate", os.MFD_CLOEXEC)
    try:
        with open(file, "wb", closefd=False) as written:
            written.write(f"{connection.certificate.strip()}\n{connection.key.reveal()}".encode())
        # Without a password of some kind, OpenSSL would ask for that of an encrypted key on the terminal.
        context.load_cert_chain(f"/proc/self/fd/{file}", password="")
    except ssl.SSLError as error:
        raise InvalidInput(
            "Our client certificate and its private key do not go together, or one of them is none.",
            code="invalid_client_key",
            hint="Give both in PEM, the key without a password; or let one be made:"
            " iceshelves cluster rotate NAME",
        ) from error
    finally:
        os.close(file)
