"""Requests to addresses that somebody else chose: a name is looked up once, judged, and then connected to.

The judgement happens in the connector's own look-up, so no second look-up can give another address
("DNS rebinding").
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult

from iceshelves.core.errors import Failed

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Judge = Callable[[Address], bool]
#: IPv6 addresses that carry one of IPv4 which nobody has judged (RFC 6052)
_TRANSLATED: Final = ipaddress.IPv6Network("64:ff9b::/96")


def is_configurable(address: Address) -> bool:
    """Whether an administrator may name it: all but the link's own addresses, where clouds keep secrets."""
    plain = _plain(address)
    if plain.is_loopback:  # Python counts ::1 as reserved too
        return True
    return not (plain.is_link_local or plain.is_multicast or plain.is_unspecified or plain.is_reserved)


def is_public(address: Address) -> bool:
    """Whether somebody outside may send us there."""
    plain = _plain(address)
    if isinstance(plain, ipaddress.IPv6Address) and (
        plain in _TRANSLATED or plain.sixtofour is not None or plain.teredo is not None
    ):
        return False
    return plain.is_global and not plain.is_multicast


def check_host(host: str, judge: Judge) -> None:
    """Judge a host that is an address; names are judged by :class:`VettedResolver`.

    Raises :class:`Failed` ``address_refused``.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return
    if not judge(address):
        raise _refused(host)


class VettedResolver(AbstractResolver):
    """Finds the addresses of a name, and refuses the name if one of them is not to be connected to."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """See aiohttp.  Raises :class:`Failed` ``address_refused``, and ``OSError`` for an unknown name."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        for _, _, _, _, where in found:
            if not self._judge(ipaddress.ip_address(str(where[0]).partition("%")[0])):
                raise _refused(host)
        return [
            ResolveResult(
                hostname=host,
                host=str(where[0]),
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, where in found
        ]

    async def close(self) -> None:
        """Nothing is held."""


def _plain(address: Address) -> Address:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _refused(host: str) -> Failed:
    return Failed(
        f"{host} is at an address that must not be connected to.",
        code="address_refused",
        hint="A redirection may lead to public addresses only, and nothing to the link's own.",
    )
