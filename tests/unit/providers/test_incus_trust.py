"""Tokens are read strictly, their server is told by its fingerprint, and nobody is asked for trust twice."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from iceshelves.connections.certificates import fingerprint, to_der
from iceshelves.core.errors import (
    Conflict,
    Denied,
    IceShelvesError,
    InvalidInput,
    NotFound,
    Temporary,
    Unsupported,
)
from iceshelves.core.secret import Secret
from iceshelves.providers.incus import trust
from iceshelves.providers.incus.client import Answer, Call, Client
from iceshelves.providers.incus.trust import TrustEntry
from testbed.certificates import Order, make

pytestmark = pytest.mark.anyio

SERVER = make(Order())
CONTENT = {
    "client_name": "north",
    "fingerprint": fingerprint(SERVER.pem),
    "addresses": ["10.0.0.7:8443", "[fd00::7]:8443"],
    "secret": "s3cret-of-the-token",
    "expires_at": "0001-01-01T00:00:00Z",
}


def packed(**changes: object) -> str:
    return base64.b64encode(json.dumps({**CONTENT, **changes}).encode()).decode()


class Daemon:
    """Stands for the client of a daemon: answers ``GET /1.0`` and has ``refusal`` for the rest."""

    where = "https://10.0.0.7:8443"

    def __init__(
        self,
        auth: str = "untrusted",
        extensions: tuple[str, ...] = (),
        refusal: IceShelvesError | None = None,
    ) -> None:
        self.calls: list[Call] = []
        self._server = {"auth": auth, "api_extensions": list(extensions)}
        self._refusal = refusal

    async def get_object(self, where: str) -> dict[str, Any]:
        assert where == "/1.0"
        return self._server

    async def call(self, call: Call) -> Answer:
        self.calls.append(call)
        if self._refusal:
            raise self._refusal
        return Answer(None, "", False)

    @property
    def client(self) -> Client:
        return cast(Client, self)


# ---- tokens


def test_a_token_says_where_its_server_is() -> None:
    token = trust.read_token(f" {packed()[:40]}\n{packed()[40:]}\n")
    assert (token.client_name, token.fingerprint) == ("north", CONTENT["fingerprint"])
    assert token.addresses == (("10.0.0.7", 8443), ("fd00::7", 8443))
    assert token.text == Secret(packed())
    assert packed() not in repr(token)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no JSON"),
        ("not base64!", "base64"),
        ("é", "base64"),
        (base64.b64encode(b"[1]").decode(), "object"),
        (base64.b64encode(b"\xff{").decode(), "JSON"),
        ("QUJD" * 5000, "too long"),
        (packed(fingerprint="abc"), "fingerprint"),
        (packed(addresses=[]), "addresses"),
        (packed(addresses=["10.0.0.7"]), "'10.0.0.7'"),
        (packed(addresses=["[fd00::7:8443"]), "fd00"),
        (packed(addresses=["host:99999"]), "99999"),
        (packed(secret=""), "secret"),
        (packed(expires_at="soon"), "expires_at"),
        (packed(expires_at="2999-01-01T00:00:00"), "expires_at"),
    ],
)
def test_what_is_no_token_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        trust.read_token(text)
    assert caught.value.code == "invalid_token"
    assert why in caught.value.message
    assert "s3cret" not in str(caught.value.to_json())


@pytest.mark.parametrize("apart", [timedelta(seconds=-1), timedelta(days=-400)])
def test_a_token_that_is_over_is_not_sent(apart: timedelta) -> None:
    with pytest.raises(InvalidInput) as caught:
        trust.read_token(packed(expires_at=(datetime.now(UTC) + apart).isoformat()))
    assert caught.value.code == "token_expired"


def test_a_token_of_today_is_read() -> None:
    later = datetime.now(UTC) + timedelta(minutes=5)
    assert trust.read_token(packed(expires_at=later.isoformat())).client_name == "north"


@pytest.mark.parametrize(
    ("shown", "outcome"),
    [
        ((SERVER.pem, None), "10.0.0.7"),
        ((None, SERVER.pem), "fd00::7"),
        ((make(Order()).pem, SERVER.pem), "fd00::7"),
        ((None, None), "hypervisor_unreachable"),
        ((None, make(Order()).pem), "token_of_another_server"),
    ],
)
async def test_the_server_of_a_token_is_the_one_with_its_certificate(
    monkeypatch: pytest.MonkeyPatch, shown: tuple[str | None, str | None], outcome: str
) -> None:
    async def fetch(host: str, port: int, deadline: float) -> str:
        found = shown[0] if host == "10.0.0.7" else shown[1]
        if found is None:
            raise Temporary("away", code="hypervisor_unreachable")
        return found

    monkeypatch.setattr(trust, "fetch_certificate", fetch)
    try:
        found = await trust.find_server(trust.read_token(packed()))
    except IceShelvesError as error:
        assert error.code == outcome  # noqa: PT017  (either is an outcome)
    else:
        assert (found.host, found.port, found.certificate) == (outcome, 8443, SERVER.pem)


# ---- joining


async def test_a_token_is_sent_once() -> None:
    daemon = Daemon()
    await trust.join_by_token(daemon.client, trust.read_token(packed()))
    (call,) = daemon.calls
    assert (call.method, call.path) == ("POST", "/1.0/certificates")
    assert call.body == {"type": "client", "trust_token": packed(), "password": packed()}
    trusted = Daemon("trusted")
    await trust.join_by_token(trusted.client, trust.read_token(packed()))
    await trust.join_by_password(trusted.client, Secret("pw"), "north")
    assert trusted.calls == []


async def test_a_refused_token_is_told() -> None:
    daemon = Daemon(refusal=Denied("not authorized"))
    with pytest.raises(Denied) as caught:
        await trust.join_by_token(daemon.client, trust.read_token(packed()))
    assert caught.value.code == "token_refused"
    assert "incus config trust add" in str(caught.value.hint)


async def test_a_password_is_for_lxd() -> None:
    lxd = Daemon(extensions=("candid_authentication",))
    await trust.join_by_password(lxd.client, Secret("pw"), "north")
    assert lxd.calls[0].body == {"type": "client", "password": "pw", "name": "north"}
    incus = Daemon(extensions=("certificate_description",))
    with pytest.raises(Unsupported) as unsupported:
        await trust.join_by_password(incus.client, Secret("pw"), "north")
    assert unsupported.value.code == "no_trust_password"
    assert incus.calls == []


async def test_a_refused_password_is_told_without_it() -> None:
    daemon = Daemon(extensions=("explicit_trust_token",), refusal=Denied("not authorized"))
    with pytest.raises(Denied) as caught:
        await trust.join_by_password(daemon.client, Secret("open-sesame"), "north")
    assert caught.value.code == "password_refused"
    assert "open-sesame" not in str(caught.value.to_json())


# ---- changing


async def test_another_certificate_gets_the_rights_it_is_to_have() -> None:
    daemon = Daemon("trusted")
    await trust.trust(daemon.client, SERVER.pem, TrustEntry("north", restricted=True, projects=("web",)))
    assert daemon.calls[0].body == {
        "type": "client",
        "name": "north",
        "certificate": base64.b64encode(to_der(SERVER.pem)).decode(),
        "restricted": True,
        "projects": ["web"],
    }


async def test_what_was_done_before_is_done() -> None:
    await trust.trust(Daemon(refusal=Conflict("already in trust store")).client, SERVER.pem, TrustEntry("n"))
    await trust.retire(Daemon(refusal=NotFound("no such object")).client, "ab" * 32)


async def test_a_fingerprint_stays_in_its_place() -> None:
    daemon = Daemon()
    await trust.retire(daemon.client, "../instances/web")
    assert daemon.calls[0].path == "/1.0/certificates/..%2Finstances%2Fweb"
