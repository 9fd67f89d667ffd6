"""The HTTPS API of a real Incus and a real LXD: joining, certificates that change or end, rotation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from iceshelves.connections.certificates import (
    fetch_certificate,
    fingerprint,
    make_client_certificate,
    to_der,
)
from iceshelves.connections.values import TlsApi
from iceshelves.core.errors import Denied, IceShelvesError, Temporary, Unsupported
from iceshelves.core.secret import Secret
from iceshelves.providers import base
from iceshelves.providers.base import Provider, require
from iceshelves.providers.incus import trust
from iceshelves.providers.incus.client import Client
from iceshelves.providers.incus.provider import IncusProvider
from testbed.certificates import Order, make
from testbed.hosts import Host
from testbed.https import PORT, Https

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The server's own event loop; the unit tests run on the standard library's."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="module")
def incus(incus_host: Host) -> Iterator[Https]:
    yield Https.of(incus_host)
    incus_host.cli("config", "unset", "core.https_address")


@pytest.fixture(scope="module")
def lxd(lxd_host: Host) -> Iterator[Https]:
    yield Https.of(lxd_host)
    lxd_host.cli("config", "unset", "core.trust_password")
    lxd_host.cli("config", "unset", "core.https_address")


@pytest.fixture(params=["incus", "lxd"])
def https(request: pytest.FixtureRequest) -> Https:
    found: Https = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def own_certificate(https: Https) -> Iterator[Https]:
    """A daemon whose certificate the test changes; it gets one of its own again."""
    yield https
    https.renew()


@asynccontextmanager
async def client_of(connection: TlsApi) -> AsyncIterator[Client]:
    client = Client(connection)
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def provider_of(connection: TlsApi, https: Https) -> AsyncIterator[Provider]:
    provider = IncusProvider(https.host.hypervisor.family, connection)
    try:
        yield provider
    finally:
        await provider.close()


async def trusted(connection: TlsApi) -> bool:
    async with client_of(connection) as client:
        return await trust.is_trusted(client)


async def refusal(connection: TlsApi) -> IceShelvesError:
    async with client_of(connection) as client:
        with pytest.raises(IceShelvesError) as caught:
            await client.get("/1.0/instances")
    return caught.value


# ---- joining


async def test_a_token_leads_to_its_server_and_lets_one_client_in(https: Https) -> None:
    ours, late = make_client_certificate("north"), make_client_certificate("late")
    token = trust.read_token(https.token("north"))
    server = await trust.find_server(token)
    assert (server.host, server.port) == (https.address, PORT)
    assert fingerprint(server.certificate) == fingerprint(https.certificate) == token.fingerprint
    connection = replace(https.connection(ours), trusted=server.certificate)
    assert not await trusted(connection)
    async with provider_of(connection, https) as provider:
        with pytest.raises(Denied) as caught:
            await provider.probe()
        assert caught.value.code == "not_trusted"
    async with client_of(connection) as client:
        await trust.join_by_token(client, token)
        await trust.join_by_token(client, token)  # as after an answer that was lost
        assert await trust.is_trusted(client)
    assert https.trusted()[fingerprint(ours.certificate)] == "north"
    async with client_of(https.connection(late)) as client:
        with pytest.raises(Denied) as refused:
            await trust.join_by_token(client, token)
        assert refused.value.code == "token_refused"
    assert fingerprint(late.certificate) not in https.trusted()
    async with provider_of(connection, https) as provider:
        assert (await provider.probe()).family == https.host.hypervisor.family
        assert await require(provider, base.Inventory).instances() == []


async def test_a_token_of_another_server_leads_nowhere(incus: Https, lxd: Https) -> None:
    token = trust.read_token(lxd.token("north"))
    with pytest.raises(Denied) as caught:
        trust.check_server(token, incus.certificate, "here")
    assert caught.value.details == {
        "expected": fingerprint(lxd.certificate),
        "found": fingerprint(incus.certificate),
    }


async def test_a_password_lets_us_into_lxd(lxd: Https) -> None:
    lxd.set_password("right-password")
    ours = make_client_certificate("south")
    async with client_of(lxd.connection(ours)) as client:
        with pytest.raises(Denied) as caught:
            await trust.join_by_password(client, Secret("wrong-password"), "south")
        assert caught.value.code == "password_refused"
        assert not await trust.is_trusted(client)
        await trust.join_by_password(client, Secret("right-password"), "south")
        assert await trust.is_trusted(client)
    assert lxd.trusted()[fingerprint(ours.certificate)] == "south"


async def test_incus_has_no_password(incus: Https) -> None:
    async with client_of(incus.connection(make_client_certificate("south"))) as client:
        with pytest.raises(Unsupported) as caught:
            await trust.join_by_password(client, Secret("any"), "south")
    assert caught.value.code == "no_trust_password"


async def test_trusted_by_hand(https: Https) -> None:
    ours = make_client_certificate("west")
    connection = https.connection(ours)
    async with client_of(connection) as client:
        assert not await trust.is_trusted(client)
        https.add_by_hand(ours.certificate, "west")
        assert await trust.is_trusted(client)
        assert await trust.trust_entry(client, fingerprint(ours.certificate)) == trust.TrustEntry("west")


async def test_a_client_of_another_cluster_is_refused(incus: Https, lxd: Https) -> None:
    lxds = lxd.joined("north")
    assert await trusted(lxds)
    misled = replace(lxds, host=incus.address, trusted=incus.certificate)
    assert not await trusted(misled)
    found = await refusal(misled)
    assert isinstance(found, Denied)
    assert found.code == "hypervisor_denied"
    # and one that has gone to another server by mistake does not even ask
    assert (await refusal(replace(lxds, host=incus.address))).code == "certificate_changed"


async def test_a_restricted_client_stays_in_its_project(https: Https) -> None:
    https.host.cli("project", "create", "fenced", "-c", "features.images=false")
    try:
        token = trust.read_token(https.token("fenced", "--restricted", "--projects", "fenced"))
        ours = make_client_certificate("fenced")
        async with client_of(https.connection(ours, "fenced")) as client:
            await trust.join_by_token(client, token)
            assert await client.get("/1.0/instances") == []
            entry = await trust.trust_entry(client, fingerprint(ours.certificate))
            assert entry == trust.TrustEntry("fenced", restricted=True, projects=("fenced",))
            with pytest.raises(Denied):
                await trust.trust(client, make_client_certificate("next").certificate, entry)
        found = await refusal(https.connection(ours, "default"))
        assert isinstance(found, Denied)
    finally:
        https.host.cli("project", "delete", "fenced")


# ---- the server's certificate


async def test_a_wrong_pin_is_refused_with_both_fingerprints(https: Https) -> None:
    pin = make(Order()).pem
    found = await refusal(replace(https.joined("pin"), trusted=pin))
    assert isinstance(found, Denied)
    assert found.code == "certificate_changed"
    assert found.details == {"expected": fingerprint(pin), "found": fingerprint(https.certificate)}


async def test_a_renewed_certificate_is_refused_until_it_is_accepted(own_certificate: Https) -> None:
    https = own_certificate
    connection = https.joined("renewed")
    async with provider_of(connection, https) as provider:
        await provider.probe()
        https.renew()
        for _ in range(2):
            with pytest.raises(IceShelvesError) as caught:
                await provider.probe()
            if isinstance(caught.value, Temporary):  # the old connection ended with the daemon
                continue
        assert caught.value.code == "certificate_changed"
        assert caught.value.details["found"] == fingerprint(https.certificate)
    shown = await fetch_certificate(connection.host, connection.port, 5.0)
    assert fingerprint(shown) == caught.value.details["found"]
    assert await trusted(replace(connection, trusted=shown))


async def test_an_expired_certificate_is_refused(own_certificate: Https) -> None:
    old = make(Order(from_day=-9, to_day=-2))
    connection = own_certificate.joined("expired")
    own_certificate.show(old)
    found = await refusal(replace(connection, trusted=old.pem))
    assert isinstance(found, Denied)
    assert found.code == "certificate_expired"
    assert fingerprint(await fetch_certificate(connection.host, PORT, 5.0)) == fingerprint(old.pem)


async def test_an_authority_vouches_for_the_server(own_certificate: Https) -> None:
    https = own_certificate
    ours, other = make(Order("ours", authority=True)), make(Order("other", authority=True))
    connection = replace(https.joined("authority"), trusted=ours.pem)
    https.show(make(Order(hosts=(https.address,)), signer=ours))
    assert await trusted(connection)
    https.show(make(Order(hosts=(https.address,)), signer=ours))  # another one: nobody is asked
    assert await trusted(connection)
    assert (await refusal(replace(connection, trusted=other.pem))).code == "certificate_authority_unknown"
    https.show(make(Order(hosts=("elsewhere.example.org",)), signer=ours))
    assert (await refusal(connection)).code == "certificate_name_mismatch"
    https.show(make(Order(hosts=(https.address,), from_day=-9, to_day=-2), signer=ours))
    assert (await refusal(connection)).code == "certificate_expired"


# ---- ours


async def test_a_client_certificate_that_is_over_is_not_shown(https: Https) -> None:
    ours = make_client_certificate("over", days=0)
    found = await refusal(https.connection(ours))
    assert isinstance(found, Denied)
    assert found.code == "client_certificate_expired"


async def test_a_client_certificate_is_changed_for_a_new_one(https: Https) -> None:
    old = https.joined("rotating")
    fresh = make_client_certificate("rotating")
    new = replace(old, certificate=fresh.certificate, key=fresh.key)
    async with client_of(old) as client:
        entry = await trust.trust_entry(client, fingerprint(old.certificate))
        await trust.trust(client, fresh.certificate, entry)
        await trust.trust(client, fresh.certificate, entry)
    assert await trusted(new)
    assert await trusted(old)
    async with client_of(old) as before, client_of(new) as client:
        assert await trust.is_trusted(before)
        await trust.retire(client, fingerprint(old.certificate))
        await trust.retire(client, fingerprint(old.certificate))
        assert not await trust.is_trusted(before)  # over a connection that was open, too
        assert await trust.is_trusted(client)
    assert (await refusal(old)).code == "hypervisor_denied"
    found = https.trusted()
    assert found[fingerprint(fresh.certificate)] == "rotating"
    assert fingerprint(old.certificate) not in found


# ---- nobody there, somebody else, away for a while


async def test_nobody_and_somebody_else_are_told_apart(https: Https) -> None:
    async def banner(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        await writer.drain()

    connection = https.joined("lost")
    nobody = await refusal(replace(connection, port=9))
    assert isinstance(nobody, Temporary)
    assert (nobody.code, "refused" in nobody.message) == ("hypervisor_unreachable", True)
    async with await asyncio.start_server(banner, "127.0.0.1", 0) as other:
        port = other.sockets[0].getsockname()[1]
        assert (await refusal(replace(connection, host="127.0.0.1", port=port))).code == "no_tls"


async def test_a_daemon_that_was_away_is_reached_again(https: Https) -> None:
    async with provider_of(https.joined("away"), https) as provider:
        await provider.probe()
        https.host.kill_daemon()
        with pytest.raises(Temporary) as caught:
            await provider.probe()
        assert caught.value.code == "hypervisor_unreachable"
        https.host.start_daemon()
        await provider.probe()


async def test_what_the_server_shows_is_seen_without_a_certificate_of_ours(https: Https) -> None:
    shown = await fetch_certificate(https.address, PORT, 5.0)
    assert to_der(shown) == to_der(https.certificate)
