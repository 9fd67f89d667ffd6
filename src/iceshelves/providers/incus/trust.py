"""Who the daemon trusts: joining its trust store with a token or a password, and changing our certificate.

A trust token is made by ``incus config trust add NAME`` (``lxc config trust add --name NAME`` on LXD): base64
of a JSON object with the server's fingerprint, its addresses and a secret (Incus' doc/authentication.md).
LXD has a trust password too; an older one takes the token in its place.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import AwareDatetime, BaseModel, Field, ValidationError

from iceshelves.connections.certificates import fetch_certificate, fingerprint, to_der
from iceshelves.connections.tls_errors import https_address
from iceshelves.core.errors import Conflict, Denied, Failed, InvalidInput, NotFound, Temporary, Unsupported
from iceshelves.core.secret import Secret
from iceshelves.providers.incus.client import Call, Client, path

_PLACE: Final = "/1.0/certificates"
_MAKE_ONE: Final = "Make one on the hypervisor: incus config trust add NAME (lxc config trust add on LXD)"
#: seconds for each of a token's addresses
_LOOK_DEADLINE: Final = 3.0
_LONGEST_TOKEN: Final = 16 * 1024
_MOST_ADDRESSES: Final = 64


@dataclass(frozen=True, slots=True)
class TrustToken:
    """A token and what it says: the server's fingerprint and its addresses, as host and port."""

    text: Secret
    client_name: str
    fingerprint: str
    addresses: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class FoundServer:
    """A server that shows the certificate (PEM) which its token told."""

    host: str
    port: int
    certificate: str


@dataclass(frozen=True, slots=True)
class TrustEntry:
    """A client certificate in the trust store; ``projects`` are those that it is restricted to, if it is."""

    name: str
    restricted: bool = False
    projects: tuple[str, ...] = ()


class _TokenContent(BaseModel):
    client_name: str = Field(default="", max_length=255)
    fingerprint: str = Field(pattern="^[0-9a-fA-F]{64}$")
    addresses: list[str] = Field(min_length=1, max_length=_MOST_ADDRESSES)
    secret: str = Field(min_length=1)
    expires_at: AwareDatetime | None = None


def read_token(text: str) -> TrustToken:
    """What the token ``text`` says.  Raises :class:`InvalidInput` ``invalid_token`` or ``token_expired``."""
    packed = "".join(text.split())
    if len(packed) > _LONGEST_TOKEN:
        raise _invalid("it is too long")
    try:
        content = _TokenContent.model_validate_json(base64.b64decode(packed, validate=True))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _invalid(f"{where}: {first['msg']}" if where else "it holds no JSON object") from None
    except ValueError:  # binascii.Error
        raise _invalid("it is not base64") from None
    _check_time(content.expires_at)
    addresses = tuple(_address(one) for one in content.addresses)
    return TrustToken(Secret(packed), content.client_name, content.fingerprint.lower(), addresses)


async def find_server(token: TrustToken) -> FoundServer:
    """The first of the token's addresses at which its server answers.

    Raises what the last of them came to: :class:`Denied` ``token_of_another_server``, :class:`Failed`
    ``no_tls``, :class:`Temporary` ``hypervisor_unreachable``.
    """
    *others, last = token.addresses
    for address in others:
        with suppress(Denied, Failed, Temporary):
            return await _meet(token, address)
    return await _meet(token, last)


def check_server(token: TrustToken, certificate: str, where: str) -> None:
    """Make sure that ``certificate`` (PEM), shown at ``where``, is that of the server that made ``token``.

    Raises :class:`Denied` ``token_of_another_server``.
    """
    found = fingerprint(certificate)
    if found != token.fingerprint:
        raise Denied(
            f"The token was made by another server: expected the certificate {token.fingerprint},"
            f" found {found} at {where}.",
            code="token_of_another_server",
            hint=_MAKE_ONE,
            details={"expected": token.fingerprint, "found": found},
        )


async def is_trusted(client: Client) -> bool:
    """Whether the daemon has our certificate in its trust store."""
    return (await client.get_object("/1.0")).get("auth") == "trusted"


async def join_by_token(client: Client, token: TrustToken) -> None:
    """Have the daemon trust our certificate; a daemon that does already is asked for nothing.

    Raises :class:`Denied` ``token_refused`` where the token is unknown, used or expired there.
    """
    if await is_trusted(client):
        return
    # Incus and newer LXD have a field for it, older LXD takes it as a password; each passes over the other's.
    try:
        await _add(client, {"trust_token": token.text.reveal(), "password": token.text.reveal()})
    except Denied as error:
        raise Denied(
            f"The hypervisor at {client.where} does not accept the token: it was used, withdrawn or is over.",
            code="token_refused",
            hint=_MAKE_ONE,
        ) from error


async def join_by_password(client: Client, password: Secret, name: str) -> None:
    """Have an LXD trust our certificate under ``name``; one that does already is asked for nothing.

    Raises :class:`Unsupported` ``no_trust_password`` on what is not LXD or has no passwords any more, and
    :class:`Denied` ``password_refused``.
    """
    server = await client.get_object("/1.0")
    if server.get("auth") == "trusted":
        return
    if not _can_have_a_password(server):
        raise Unsupported("Incus has no trust password.", code="no_trust_password", hint=_MAKE_ONE)
    try:
        await _add(client, {"password": password.reveal(), "name": name})
    except Denied as error:
        raise Denied(
            f"The hypervisor at {client.where} does not accept the trust password.",
            code="password_refused",
            hint="Check it, and that one is set: lxc config get core.trust_password",
        ) from error


async def trust_entry(client: Client, certificate_fingerprint: str) -> TrustEntry:
    """The entry of a client certificate.  Raises :class:`NotFound`; :class:`Denied` where we may not look."""
    raw = await client.get_object(path("certificates", certificate_fingerprint))
    projects = tuple(str(project) for project in raw.get("projects") or ())
    return TrustEntry(str(raw.get("name", "")), raw.get("restricted") is True, projects)


async def trust(client: Client, certificate: str, entry: TrustEntry) -> None:
    """Have the daemon trust ``certificate`` (PEM) too, as ``entry`` says; repeated, it changes nothing.

    Raises :class:`Denied` where our own certificate may not add others.
    """
    body = {
        "type": "client",
        "name": entry.name,
        "certificate": base64.b64encode(to_der(certificate)).decode(),
        "restricted": entry.restricted,
        "projects": list(entry.projects),
    }
    try:
        await client.call(Call("POST", _PLACE, body))
    except Conflict:
        return


async def retire(client: Client, certificate_fingerprint: str) -> None:
    """Have the daemon trust a client certificate no longer; repeated, it changes nothing."""
    try:
        await client.call(Call("DELETE", path("certificates", certificate_fingerprint)))
    except NotFound:
        return


async def _meet(token: TrustToken, address: tuple[str, int]) -> FoundServer:
    certificate = await fetch_certificate(*address, _LOOK_DEADLINE)
    check_server(token, certificate, https_address(*address))
    return FoundServer(*address, certificate)


async def _add(client: Client, proof: Mapping[str, Any]) -> None:
    """Have the certificate of our own TLS connection trusted."""
    await client.call(Call("POST", _PLACE, {"type": "client", **proof}))


def _can_have_a_password(server: Mapping[str, Any]) -> bool:
    """Whether ``server`` is an LXD: one that does not trust us says no more of itself than its extensions.

    Incus began with those of LXD 5.17, without Candid; LXD has had a field of its own for tokens since.
    """
    return not {"candid_authentication", "explicit_trust_token"}.isdisjoint(
        server.get("api_extensions") or ()
    )


def _check_time(end: datetime | None) -> None:
    # Go writes the first moment of year 1 for "never".
    if end is None or end.year == 1 or end.astimezone(UTC) > datetime.now(UTC):
        return
    raise InvalidInput(
        f"The token has expired: it was valid until {end.astimezone(UTC):%Y-%m-%d %H:%M} UTC.",
        code="token_expired",
        hint=_MAKE_ONE,
    )


def _address(text: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        if parts.hostname and parts.port and text.isprintable():
            return parts.hostname, parts.port
    except ValueError:  # a port or an IPv6 address that is none
        pass
    raise _invalid(f"{text!r} is not an address")


def _invalid(why: str) -> InvalidInput:
    return InvalidInput(f"This is not a trust token: {why}.", code="invalid_token", hint=_MAKE_ONE)
