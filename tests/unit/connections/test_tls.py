"""Who is let in over TLS and who is not.  The server at the other end of a socket pair is a real one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.client_proto import ResponseHandler

from iceshelves.connections.certificates import (
    fetch_certificate,
    fingerprint,
    make_client_certificate,
    to_der,
)
from iceshelves.connections.opening import open_transport
from iceshelves.connections.tls import TlsTransport
from iceshelves.connections.transport import open_hypervisor_session
from iceshelves.connections.values import TlsApi
from iceshelves.core.errors import Denied, Failed, IceShelvesError, InvalidInput, Temporary
from iceshelves.core.secret import Secret
from testbed.certificates import Made, Order, make

pytestmark = pytest.mark.anyio

HOST = "hv.example.org"
OURS = make_client_certificate("tests")
Serve = Callable[[socket.socket], Awaitable[object]]


class _Answering(asyncio.Protocol):
    """Answers each request with the fingerprint of the certificate that the client has shown."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        connection = transport.get_extra_info("ssl_object")
        shown = connection.getpeercert(binary_form=True)
        self._server.seen.append(fingerprint(shown) if shown else None)
        self._server.taken_up.append(connection.session_reused)

    def data_received(self, data: bytes) -> None:
        body = str(self._server.seen[-1]).encode()
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


def showing(made: Made) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    file = os.memfd_create("server")
    Path(f"/proc/self/fd/{file}").write_text(made.pem + made.key_pem)
    context.load_cert_chain(f"/proc/self/fd/{file}")
    os.close(file)
    return context


@dataclass
class Server:
    """Where every connection of the test ends.

    ``seen``: whose certificate each has shown; ``taken_up``: whether it went on with an earlier session.
    """

    serve: Serve = field(init=False)
    seen: list[str | None] = field(default_factory=list)
    taken_up: list[bool] = field(default_factory=list)
    dialled: list[tuple[str, int]] = field(default_factory=list)

    def show(self, made: Made) -> None:
        """Serve TLS with ``made``'s certificate, to anybody."""
        context = showing(made)
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(cadata=to_der(OURS.certificate))
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN

        async def serve(end: socket.socket) -> None:
            with contextlib.suppress(OSError):
                await asyncio.get_running_loop().connect_accepted_socket(
                    lambda: _Answering(self), end, ssl=context
                )

        self.serve = serve

    def say(self, words: bytes) -> None:
        """Serve no TLS: hear something, say ``words`` and hang up."""

        async def serve(end: socket.socket) -> None:
            loop = asyncio.get_running_loop()
            await loop.sock_recv(end, 4096)
            await loop.sock_sendall(end, words)
            end.close()

        self.serve = serve


@pytest.fixture
async def server(anyio_backend: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    server = Server()
    loop = asyncio.get_running_loop()
    connect = loop.create_connection
    tasks = []

    async def to_server(factory: Any, host: str, port: int, **options: Any) -> Any:
        server.dialled.append((host, port))
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        tasks.append(asyncio.ensure_future(server.serve(theirs)))
        return await connect(factory, sock=ours, **options)

    monkeypatch.setattr(loop, "create_connection", to_server)
    yield server
    await asyncio.gather(*tasks)


def trusting(made: Made, host: str = HOST) -> TlsApi:
    return TlsApi(host, 8443, OURS.certificate, OURS.key, made.pem)


async def ask(connection: TlsApi) -> str:
    """The fingerprint of the certificate that the server says it was shown."""
    transport = open_transport(connection)
    async with open_hypervisor_session(transport) as session, session.get("/1.0") as response:
        return await response.text()


async def refusal(connection: TlsApi) -> IceShelvesError:
    transport = TlsTransport(connection)
    loop = asyncio.get_running_loop()
    with pytest.raises(IceShelvesError) as caught:
        await transport.dial(lambda: ResponseHandler(loop))
    return caught.value


# ---- a server's own certificate


async def test_the_pinned_server_is_shown_our_certificate(server: Server) -> None:
    own = make(Order("any", hosts=("elsewhere.example.org",)))
    server.show(own)
    assert await ask(trusting(own)) == fingerprint(OURS.certificate)
    assert server.dialled == [(HOST, 8443)]


async def test_another_certificate_is_refused_and_both_are_told(server: Server) -> None:
    own, other = make(Order()), make(Order())
    server.show(other)
    found = await refusal(trusting(own))
    assert isinstance(found, Denied)
    assert found.code == "certificate_changed"
    assert found.details == {"expected": fingerprint(own.pem), "found": fingerprint(other.pem)}
    assert fingerprint(own.pem) in found.message
    assert fingerprint(other.pem) in found.message
    assert "iceshelves cluster accept-certificate" in str(found.hint)
    assert fingerprint(OURS.certificate) not in server.seen


async def test_a_certificate_signed_by_the_pinned_one_is_not_it(server: Server) -> None:
    own = make(Order(hosts=(HOST,)))
    server.show(make(Order(hosts=(HOST,)), signer=own))
    assert (await refusal(trusting(own))).code == "certificate_changed"


async def test_a_pinned_certificate_ends(server: Server) -> None:
    own = make(Order(from_day=-9, to_day=-2))
    server.show(own)
    found = await refusal(trusting(own))
    assert (found.code, found.details) == (
        "certificate_expired",
        {"not_after": own.signed.not_valid_after_utc.isoformat()},
    )


async def test_a_pinned_certificate_of_the_future_is_refused(server: Server) -> None:
    own = make(Order(from_day=2))
    server.show(own)
    assert (await refusal(trusting(own))).code == "certificate_not_yet_valid"


async def exchange(transport: TlsTransport) -> None:
    """Ask once over a new connection."""
    async with open_hypervisor_session(transport) as session, session.get("/1.0") as response:
        await response.read()


async def test_a_session_is_taken_up_for_a_while(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    own = make(Order())
    server.show(own)
    transport = TlsTransport(trusting(own))
    for _ in range(3):
        await exchange(transport)
    assert server.taken_up == [False, True, True]
    assert server.seen == [fingerprint(OURS.certificate)] * 3
    clock = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: clock() + 601)
    for _ in range(2):
        await exchange(transport)
    assert server.taken_up[3:] == [False, True]


async def test_a_session_is_no_way_around_the_pin(server: Server) -> None:
    own = make(Order())
    server.show(own)
    transport = TlsTransport(trusting(own))
    await exchange(transport)
    server.show(make(Order()))
    with pytest.raises(Denied) as caught:
        await exchange(transport)
    assert caught.value.code == "certificate_changed"


# ---- an authority's


async def test_an_authority_vouches_for_the_host(server: Server) -> None:
    authority = make(Order("ours", authority=True))
    server.show(make(Order(hosts=(HOST,)), signer=authority))
    assert await ask(trusting(authority)) == fingerprint(OURS.certificate)


async def test_an_authority_below_another_vouches_too(server: Server) -> None:
    top = make(Order("top", authority=True))
    authority = make(Order("ours", authority=True), signer=top)
    server.show(make(Order(hosts=("10.0.0.7",)), signer=authority))
    assert await ask(trusting(authority, "10.0.0.7")) == fingerprint(OURS.certificate)


@pytest.mark.parametrize("host", ["other.example.org", "10.0.0.7"])
async def test_an_authority_does_not_vouch_for_other_names(server: Server, host: str) -> None:
    authority = make(Order("ca", authority=True))
    server.show(make(Order(hosts=(HOST,)), signer=authority))
    assert (await refusal(trusting(authority, host))).code == "certificate_name_mismatch"


async def test_another_authority_is_refused(server: Server) -> None:
    authority, other = make(Order("a", authority=True)), make(Order("b", authority=True))
    shown = make(Order(hosts=(HOST,)), signer=other)
    server.show(shown)
    found = await refusal(trusting(authority))
    assert found.code == "certificate_authority_unknown"
    assert found.details == {"expected": fingerprint(authority.pem), "found": fingerprint(shown.pem)}


async def test_a_signed_certificate_ends(server: Server) -> None:
    authority = make(Order("ca", authority=True))
    shown = make(Order(hosts=(HOST,), from_day=-9, to_day=-2), signer=authority)
    server.show(shown)
    found = await refusal(trusting(authority))
    assert found.code == "certificate_expired"
    assert found.details == {"not_after": shown.signed.not_valid_after_utc.isoformat()}


async def test_an_authority_that_is_the_server_itself_needs_no_name(server: Server) -> None:
    own = make(Order("ca", authority=True))
    server.show(own)
    transport = TlsTransport(trusting(own))
    loop = asyncio.get_running_loop()
    (await transport.dial(lambda: ResponseHandler(loop))).close()
    assert len(server.dialled) == 3  # refused by name, looked at, pinned
    (await transport.dial(lambda: ResponseHandler(loop))).close()
    assert len(server.dialled) == 4
    await transport.close()
    old = make(Order("ca", authority=True, from_day=-9, to_day=-2))
    server.show(old)
    assert (await refusal(trusting(old))).code == "certificate_expired"


# ---- our own


async def test_our_own_certificate_ends_before_anything_is_sent(server: Server) -> None:
    own, ours = make(Order()), make_client_certificate("tests", days=0)
    server.show(own)
    found = await refusal(replace(trusting(own), certificate=ours.certificate, key=ours.key))
    assert isinstance(found, Denied)
    assert (found.code, found.hint) == ("client_certificate_expired", "iceshelves cluster rotate NAME")
    assert server.dialled == []


ENCRYPTED = """-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAg=
-----END ENCRYPTED PRIVATE KEY-----
"""


@pytest.mark.parametrize("key", ["", "no key", make(Order()).key_pem, ENCRYPTED])
async def test_a_key_that_is_not_the_certificates_is_told(server: Server, key: str) -> None:
    found = await refusal(replace(trusting(make(Order())), key=Secret(key)))
    assert isinstance(found, InvalidInput)
    assert found.code == "invalid_client_key"
    assert server.dialled == []


async def test_a_trusted_certificate_that_is_none_is_told(server: Server) -> None:
    assert (await refusal(replace(trusting(make(Order())), trusted="x"))).code == "invalid_certificate"


async def test_no_key_is_left_open(server: Server) -> None:
    own = make(Order())
    server.show(own)
    await ask(trusting(own))
    names = []
    for fd in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            names.append(str(fd.readlink()))
    assert not [name for name in names if "client-certificate" in name]


# ---- what is no TLS, or an old one


@pytest.mark.parametrize("words", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-x\r\n", b"\xff" * 64])
async def test_what_speaks_no_tls_is_told(server: Server, words: bytes) -> None:
    server.say(words)
    found = await refusal(trusting(make(Order())))
    assert isinstance(found, Failed)
    assert found.code == "no_tls"
    with pytest.raises(Failed) as caught:
        await fetch_certificate(HOST, 8443, 2.0)
    assert caught.value.code == "no_tls"


async def test_an_old_tls_is_refused(server: Server) -> None:
    own = make(Order())
    context = showing(own)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("DEFAULT:@SECLEVEL=0")

    def serve(end: socket.socket) -> None:
        end.setblocking(True)
        with contextlib.suppress(OSError), context.wrap_socket(end, server_side=True):
            pass

    server.serve = lambda end: asyncio.to_thread(serve, end)
    found = await refusal(trusting(own))
    assert (found.code, "version" in found.message) == ("no_tls", True)


@pytest.mark.parametrize("words", [b"", bytes.fromhex("160303007a0200007603")])  # the start of an answer
async def test_who_hangs_up_is_unreachable(server: Server, words: bytes) -> None:
    server.say(words)
    with pytest.raises(aiohttp.ClientError, match="reset by peer") as caught:
        await ask(trusting(make(Order())))
    assert isinstance(caught.value, OSError)
    with pytest.raises(Temporary) as looked:
        await fetch_certificate(HOST, 8443, 2.0)
    assert looked.value.code == "hypervisor_unreachable"
    assert "reset by peer" in looked.value.message


async def test_a_host_that_can_be_none_is_told(anyio_backend: str) -> None:
    for host in (".", "a" * 64, ".example.org"):
        assert (await refusal(trusting(make(Order()), host))).code == "invalid_connection"
        with pytest.raises(InvalidInput):
            await fetch_certificate(host, 8443, 2.0)


# ---- a look


async def test_a_look_shows_the_certificate_and_sends_none_of_ours(server: Server) -> None:
    own = make(Order(from_day=-9, to_day=-2))
    server.show(own)
    assert to_der(await fetch_certificate(HOST, 8443, 2.0)) == to_der(own.pem)
    await asyncio.sleep(0)
    assert server.seen in ([], [None])


async def test_a_look_has_a_deadline(server: Server) -> None:
    async def silent(end: socket.socket) -> None:
        await asyncio.sleep(0.3)
        end.close()

    server.serve = silent
    with pytest.raises(Temporary) as caught:
        await fetch_certificate(HOST, 8443, 0.05)
    assert caught.value.code == "hypervisor_unreachable"


def test_where_it_leads() -> None:
    assert TlsTransport(trusting(make(Order()))).where == f"https://{HOST}:8443"
    assert TlsTransport(trusting(make(Order()), "fd00::7")).where == "https://[fd00::7]:8443"
