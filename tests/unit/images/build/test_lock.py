"""Locks: what is written is read again, and what would lead elsewhere is not."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from iceshelves.core.errors import InvalidInput
from iceshelves.images.build.lock import Lock, Package, parse_lock, render_lock, same_content

NGINX = Package(
    "nginx",
    "1.22.1-9+deb12u1",
    "amd64",
    "a" * 64,
    527000,
    "pool/main/n/nginx/nginx_1.22.1-9+deb12u1_amd64.deb",
)
LIBC = Package(
    "libc6", "2.36-9", "amd64", "b" * 64, 2750000, "pool/updates/main/g/glibc/libc6_2.36-9_amd64.deb"
)
LOCK = Lock(
    "web",
    "sha256:" + "c" * 64,
    "sha256:" + "d" * 64,
    1_767_323_040,
    "debian",
    "bookworm",
    "amd64",
    (LIBC,),
    (NGINX,),
)


def test_a_lock_is_read_as_it_was_written() -> None:
    assert parse_lock(render_lock(LOCK), "appliance.lock") == LOCK


def test_a_lock_without_packages_of_its_own_is_read_too() -> None:
    plain = dataclasses.replace(LOCK, packages=())
    assert parse_lock(render_lock(plain), "appliance.lock") == plain


def test_a_package_is_one_line_of_a_lock() -> None:
    newer = dataclasses.replace(NGINX, version="1.22.1-10", sha256="d" * 64)
    before, after = (
        render_lock(dataclasses.replace(LOCK, packages=(each,))).splitlines() for each in (NGINX, newer)
    )
    assert sum(one != other for one, other in zip(before, after, strict=True)) == 1


def test_equal_content_is_equal_at_another_time() -> None:
    assert same_content(LOCK, dataclasses.replace(LOCK, epoch=1))
    assert not same_content(LOCK, dataclasses.replace(LOCK, recipe="sha256:" + "e" * 64))
    assert not same_content(LOCK, dataclasses.replace(LOCK, packages=()))


@pytest.mark.parametrize(
    "change",
    [
        {"sha256": "../../etc/shadow"},
        {"sha256": "A" * 64},
        {"filename": "../../etc/shadow.deb"},
        {"filename": "pool/../../x.deb"},
        {"filename": "/etc/x.deb"},
        {"filename": "pool/x.rpm"},
        {"name": "--purge"},
        {"name": "nginx,curl"},
        {"version": "1.0 -y"},
        {"version": "-1"},
        {"architecture": "arm64"},
        {"size": 0},
        {"size": "1"},
    ],
)
def test_a_damaged_entry_is_refused(change: dict[str, Any]) -> None:
    document = json.loads(render_lock(LOCK))
    document["packages"][0].update(change)
    with pytest.raises(InvalidInput) as refused:
        parse_lock(json.dumps(document), "appliance.lock")
    assert refused.value.code == "invalid_lock"


@pytest.mark.parametrize("change", [{"format": 2}, {"epoch": 0}, {"epoch": 2**40}, {"base": None}])
def test_a_damaged_lock_is_refused(change: dict[str, Any]) -> None:
    document = {**json.loads(render_lock(LOCK)), **change}
    with pytest.raises(InvalidInput) as refused:
        parse_lock(json.dumps(document), "appliance.lock")
    assert refused.value.code == "invalid_lock"


def test_a_package_twice_is_refused() -> None:
    twice = dataclasses.replace(LOCK, packages=(NGINX, LIBC))
    with pytest.raises(InvalidInput, match="twice"):
        parse_lock(render_lock(twice), "appliance.lock")
