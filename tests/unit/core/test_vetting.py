"""Where requests may go that somebody else has chosen."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from typing import Any

import pytest

from iceshelves.core.errors import Failed
from iceshelves.core.vetting import Judge, VettedResolver, check_host, is_configurable, is_public


@pytest.mark.parametrize(
    ("address", "configurable", "public"),
    [
        ("93.184.216.34", True, True),
        ("2606:4700::1111", True, True),
        ("10.0.0.1", True, False),
        ("127.0.0.1", True, False),
        ("::1", True, False),
        ("fd00::1", True, False),
        ("100.64.0.1", True, False),
        ("::ffff:10.0.0.1", True, False),
        ("::ffff:93.184.216.34", True, True),
        ("64:ff9b::a00:1", False, False),
        ("2002:a00:1::1", True, False),
        ("169.254.169.254", False, False),
        ("::ffff:169.254.169.254", False, False),
        ("fe80::1", False, False),
        ("224.0.0.1", False, False),
        ("0.0.0.0", False, False),
        ("::", False, False),
        ("240.0.0.1", False, False),
    ],
)
def test_addresses(address: str, configurable: bool, public: bool) -> None:
    parsed = ipaddress.ip_address(address)
    assert (is_configurable(parsed), is_public(parsed)) == (configurable, public)


def test_a_host_that_is_an_address_is_judged_as_one() -> None:
    check_host("10.0.0.1", is_configurable)
    check_host("images.example.org", is_public)  # judged when it is looked up
    for host in ("10.0.0.1", "::1", "169.254.169.254"):
        with pytest.raises(Failed) as refused:
            check_host(host, is_public)
        assert refused.value.code == "address_refused"


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Have every name mean these addresses, comma separated."""
    addresses: list[str] = []

    async def look_up(_loop: Any, _host: str, port: int, **_more: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in addresses]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", look_up)
    return lambda text: addresses.extend(text.split(","))


def resolve(judge: Judge) -> list[str]:
    found = asyncio.run(VettedResolver(judge).resolve("images.example.org", 443))
    return [each["host"] for each in found]


def test_the_addresses_that_were_judged_are_those_that_are_used(known: Callable[[str], None]) -> None:
    known("93.184.216.34,93.184.216.35")
    assert resolve(is_public) == ["93.184.216.34", "93.184.216.35"]


def test_one_bad_address_is_enough(known: Callable[[str], None]) -> None:
    known("93.184.216.34,10.0.0.1")
    assert resolve(is_configurable) == ["93.184.216.34", "10.0.0.1"]
    with pytest.raises(Failed, match="must not be connected to"):
        resolve(is_public)
