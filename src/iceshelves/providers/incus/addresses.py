"""Keeping an instance's IPv4 addresses when its root file system is replaced.

A new root file system has a new DHCP identity, so the network would give it a new address although its MAC
is the old one (measured on Incus 6.0.4 with Debian's guests).  Writing the current address into the
instance's own network device keeps it.  IPv6 addresses follow the MAC and need nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from iceshelves.core.errors import NotFound
from iceshelves.providers.incus.client import Client, path
from iceshelves.providers.incus.wire import Devices

_ADDRESS: Final = "ipv4.address"


async def pins_for(
    client: Client, raw: Mapping[str, Any], wanted: Mapping[str, Mapping[str, str]]
) -> dict[str, str]:
    """The address to pin for each network device of ``wanted``, as the instance ``raw`` has it now.

    Devices that name an address themselves, that change their network, or that are on networks whose
    addresses the hypervisor does not give out are left out.
    """
    pins: dict[str, str] = {}
    for name, device in wanted.items():
        before: Mapping[str, str] = (raw.get("expanded_devices") or {}).get(name) or {}
        network = device.get("network")
        if device.get("type") != "nic" or not network or before.get("network") != network:
            continue
        if device.get(_ADDRESS):
            continue
        address = before.get(_ADDRESS) or await _current(client, raw, name, network)
        if address:
            pins[name] = address
    return pins


def pinned(own: Devices, expanded: Mapping[str, Mapping[str, str]], pins: Mapping[str, str]) -> Devices:
    """``own`` devices with ``pins``; a device that came from a profile becomes the instance's own."""
    return {**own, **{name: {**expanded[name], _ADDRESS: address} for name, address in pins.items()}}


async def _current(client: Client, raw: Mapping[str, Any], nic: str, network: str) -> str | None:
    mac = (raw.get("config") or {}).get(f"volatile.{nic}.hwaddr")
    if not mac or not await _gives_addresses(client, network):
        return None
    name = str(raw.get("name", ""))
    state = await client.get_object(path("instances", name, "state"))
    for details in (state.get("network") or {}).values():
        if details.get("hwaddr") == mac:
            for address in details.get("addresses") or ():
                if address.get("family") == "inet" and address.get("scope") == "global":
                    return str(address["address"])
    return _leased(await _leases(client, network), mac, name)


async def _gives_addresses(client: Client, network: str) -> bool:
    try:
        raw = await client.get_object(path("networks", network))
    except NotFound:
        return False
    config: Mapping[str, str] = raw.get("config") or {}
    return (
        raw.get("managed") is True
        and raw.get("type") == "bridge"
        and config.get(_ADDRESS, "none") not in ("none", "")
        and config.get("ipv4.dhcp", "true") != "false"
    )


async def _leases(client: Client, network: str) -> list[dict[str, Any]]:
    listed = await client.get(path("networks", network, "leases"))
    return [lease for lease in listed if isinstance(lease, dict)] if isinstance(listed, list) else []


def _leased(leases: list[dict[str, Any]], mac: str, hostname: str) -> str | None:
    """The IPv4 lease of ``mac``: a static one before others, then the one the guest took with its name."""
    ours = [lease for lease in leases if lease.get("hwaddr") == mac and "." in str(lease.get("address"))]
    ours.sort(key=lambda lease: (lease.get("type") != "static", lease.get("hostname") != hostname))
    return str(ours[0]["address"]) if ours else None
