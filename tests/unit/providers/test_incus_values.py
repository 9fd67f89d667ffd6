"""What is read from and written to the daemon's JSON, and the choices made on it."""

from __future__ import annotations

from typing import Any

import pytest

from iceshelves.connections.values import (
    ImageServer,
    Scenario,
    UnixSocket,
    connection_from_url,
)
from iceshelves.core.errors import Conflict, Denied, IceShelvesError, InvalidInput, NotFound, Temporary
from iceshelves.providers.base import Image, InstanceSpec, Mark
from iceshelves.providers.incus import errors, images, wire
from iceshelves.providers.incus.addresses import _leased, pinned
from iceshelves.providers.incus.client import path
from iceshelves.providers.incus.guest import global_addresses
from iceshelves.providers.registry import open_provider

MARK = Mark("unit", "dep", "op1", 3, "web@1.0.0")


def spec(**more: Any) -> InstanceSpec:
    return InstanceSpec("web", "container", Image("f" * 64, "x", "container"), MARK, **more)


# Connections


def test_addresses_of_clusters_are_read() -> None:
    assert connection_from_url("unix:///run/a%20b.sock?project=p") == UnixSocket("/run/a b.sock", "p")
    assert connection_from_url("fake://w?file=/x.json", {"delays": {}}) == Scenario(
        "w", "/x.json", {"delays": {}}
    )


@pytest.mark.parametrize(
    "url",
    [
        "",
        "unix://",
        "unix://host/path",
        "http://x",
        "fake://",
        "fake://w/x",
        "unix://]",
        "unix:///run/a%00b",
        "unix:///run/" + "a" * 200,
        "unix:///run/\ud800",
    ],
)
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        connection_from_url(url)
    assert caught.value.code == "invalid_connection"


@pytest.mark.parametrize(
    ("family", "connection", "code"),
    [
        ("vmware", UnixSocket("/x"), "unknown_family"),
        ("fake", UnixSocket("/x"), "invalid_connection"),
        ("incus", Scenario("w"), "invalid_connection"),
    ],
)
def test_families_and_connections_must_fit(family: str, connection: Any, code: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        open_provider(family, connection)
    assert caught.value.code == code


def test_no_name_leaves_its_place_in_a_path() -> None:
    assert path("instances", "../networks?x#", "state") == "/1.0/instances/..%2Fnetworks%3Fx%23/state"


# Marks, configuration, devices


def test_a_mark_survives_the_wire() -> None:
    assert wire.mark_from_config(wire.mark_to_config(MARK)) == MARK
    assert wire.mark_from_config({"user.iceshelves.deployment": "x"}) is None


def test_an_instance_being_rebuilt_is_not_settled_and_shows_no_keys_of_ours_or_the_daemons() -> None:
    config = {
        **wire.config_of(spec(config={"user.x": "y"}), wire.REBUILDING),
        "volatile.uuid": "u",
        "image.os": "D",
    }
    found = wire.instance_from_wire(
        {"name": "web", "status": "Running", "type": "container", "config": config}
    )
    assert (found.settled, found.mark, found.power, found.config) == (False, MARK, "running", {"user.x": "y"})
    assert wire.kept_config(config) == {"volatile.uuid": "u", "image.os": "D"}


def test_a_root_size_is_written_on_a_copy_of_the_inherited_root_disk() -> None:
    inherited = {"root": {"type": "disk", "path": "/", "pool": "fast"}, "eth0": {"type": "nic"}}
    assert wire.devices_of(spec(root_size=1024), inherited) == {
        "root": {"type": "disk", "path": "/", "pool": "fast", "size": "1024B"}
    }
    assert wire.devices_of(spec(), inherited) == {}
    with pytest.raises(InvalidInput) as caught:
        wire.devices_of(spec(root_size=1024), {})
    assert caught.value.code == "no_root_disk"


def test_a_successors_name_is_a_host_name() -> None:
    assert wire.successor_of("a" * 63) == "a" * 58 + "-next"


def test_a_pin_makes_a_profiles_device_the_instances_own() -> None:
    expanded = {"eth0": {"type": "nic", "network": "br"}}
    assert pinned({"data": {"type": "disk"}}, expanded, {"eth0": "10.0.0.7"}) == {
        "data": {"type": "disk"},
        "eth0": {"type": "nic", "network": "br", "ipv4.address": "10.0.0.7"},
    }


def test_the_right_lease_is_taken() -> None:
    leases = [
        {"hwaddr": "m", "address": "fd00::1", "type": "dynamic", "hostname": "web"},
        {"hwaddr": "m", "address": "10.0.0.9", "type": "dynamic", "hostname": "*"},
        {"hwaddr": "m", "address": "10.0.0.8", "type": "dynamic", "hostname": "web"},
        {"hwaddr": "other", "address": "10.0.0.2", "type": "static", "hostname": "web"},
    ]
    assert _leased(leases, "m", "web") == "10.0.0.8"
    assert (
        _leased([*leases, {"hwaddr": "m", "address": "10.0.0.7", "type": "static"}], "m", "web") == "10.0.0.7"
    )
    assert _leased(leases, "none", "web") is None


def test_global_addresses_come_with_ipv4_first() -> None:
    def address(family: str, text: str, scope: str = "global") -> dict[str, str]:
        return {"family": family, "address": text, "scope": scope}

    network = {
        "lo": {"addresses": [address("inet", "127.0.0.1", "local")]},
        "eth0": {"addresses": [address("inet6", "fd00::5"), address("inet6", "fe80::1", "link")]},
        "eth1": {"addresses": [address("inet", "10.0.0.5")]},
    }
    assert global_addresses({"network": network}) == ["10.0.0.5", "fd00::5"]
    assert global_addresses({"network": None}) == []


# Errors


@pytest.mark.parametrize(
    ("status", "words", "kind", "code"),
    [
        (403, "not authorized", Denied, "hypervisor_denied"),
        (404, "Instance not found", NotFound, "instance_not_found"),
        (404, "odd", NotFound, "hypervisor_not_found"),
        (400, "Unknown configuration key: x", InvalidInput, "hypervisor_refused"),
        (400, "Instance already exists", Conflict, "already_exists"),
        (412, "ETag doesn't match", Conflict, "changed_meanwhile"),
        (503, "daemon is starting", Temporary, "hypervisor_busy"),
        (500, "", IceShelvesError, "hypervisor_failed"),
    ],
)
def test_refusals_become_our_errors(status: int, words: str, kind: type, code: str) -> None:
    error = errors.refusal(status, words)
    assert isinstance(error, kind)
    assert error.code == code
    assert "\n" not in errors.refusal(status, f"{words}\nmore").message


# Images

SERVERS = (ImageServer("ubuntu", "https://u", strip="ubuntu/"), ImageServer("images", "https://i"))


def held(fingerprint: str, alias: str = "", kind: str = "container", origin: str = "") -> dict[str, Any]:
    return {
        "fingerprint": fingerprint * 64,
        "type": kind,
        "aliases": [{"name": alias}] if alias else [],
        "update_source": {"alias": origin, "server": "https://i"} if origin else None,
    }


@pytest.mark.parametrize(
    ("reference", "kind", "chosen"),
    [
        ("debian/13", "container", "a"),
        ("debian/12", "container", "b"),
        ("debian/13", "virtual-machine", "c"),
        ("d" * 12, "container", "d"),
        ("images:debian/11", "container", "d"),
        ("debian/11", "container", "d"),
        ("debian/10", "container", None),
        ("other:debian/13", "container", None),
    ],
)
def test_the_held_image_is_chosen(reference: str, kind: Any, chosen: str | None) -> None:
    there = [
        held("e", "debian/13/cloud"),
        held("a", "debian/13"),
        held("b", "debian/12/cloud"),
        held("c", "debian/13", kind="virtual-machine"),
        held("d", origin="debian/11/cloud"),
    ]
    found = images._choose(there, images._parse(reference, kind), SERVERS)
    assert (found["fingerprint"][0] if found else None) == chosen


@pytest.mark.parametrize(
    ("reference", "sources"),
    [
        ("debian/13", [("images", "debian/13/cloud"), ("images", "debian/13")]),
        ("debian/13/cloud", [("images", "debian/13/cloud")]),
        ("ubuntu/24.04", [("ubuntu", "24.04"), ("images", "ubuntu/24.04/cloud"), ("images", "ubuntu/24.04")]),
        ("ubuntu:noble", [("ubuntu", "noble")]),
        ("none:x", []),
    ],
)
def test_image_servers_are_asked_for_the_variant_with_cloud_init_first(
    reference: str, sources: list[tuple[str, str]]
) -> None:
    wanted = images._parse(reference, "container")
    assert [(server.name, alias) for server, alias in images._sources(wanted, SERVERS)] == sources


@pytest.mark.parametrize("reference", ["", "-x", "a b", "a:b:c", "https://x/y", "x" * 300])
def test_odd_references_are_refused(reference: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        images._parse(reference, "container")
    assert caught.value.code == "invalid_image"


@pytest.mark.parametrize(
    ("properties", "release"),
    [
        ({"os": "Debian", "release": "trixie"}, "debian/13"),
        ({"os": "ubuntu", "release": "noble"}, "ubuntu/24.04"),
        ({"os": "Ubuntu", "release": "24.04 LTS"}, "ubuntu/24.04"),
        ({"os": "Alpine", "release": "3.20"}, "alpine/3.20"),
        ({"os": "Debian"}, ""),
    ],
)
def test_releases_are_told_as_references(properties: dict[str, str], release: str) -> None:
    assert images.release_of(properties) == release
