"""Names in catalogues."""

from __future__ import annotations

import pytest

from iceshelves.core.errors import InvalidInput
from iceshelves.images.simplestreams.names import (
    ITEM_PATH,
    check_alias,
    check_channel,
    is_version_key,
    next_serial,
)


def test_the_next_serial_goes_over_midnight_and_new_year() -> None:
    assert next_serial("20261231_2359") == "20270101_0000"


@pytest.mark.parametrize("alias", ["nginx/1", "nginx/1.22", "nginx/1.22.1", "nginx/lts", "nginx:1.22"])
def test_good_aliases(alias: str) -> None:
    assert check_alias(alias, "nginx", "1.22.1") == alias


@pytest.mark.parametrize(
    "alias", ["nginx", "nginx-proxy", "nginx/", "nginx/a/b", "nginx/1.2", "nginx/2", "nginx/arm64", "web", ""]
)
def test_bad_aliases(alias: str) -> None:
    with pytest.raises(InvalidInput):
        check_alias(alias, "nginx", "1.22.1")


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "streams", "amd64", "a/b", "..", "a" * 40])
def test_bad_channels(name: str) -> None:
    with pytest.raises(InvalidInput):
        check_channel(name)


def test_version_keys_begin_with_a_real_date() -> None:
    assert is_version_key("20261120_0729")
    assert is_version_key("20261120")
    assert not is_version_key("20261320_0729")
    assert not is_version_key("2026-11-20")
    assert not is_version_key("20261120/../x")


def test_item_paths() -> None:
    name = "a" * 64
    assert ITEM_PATH.fullmatch(f"../../images/{name}.tar.xz")
    for bad in (
        f"images/{name}",
        f"images/{name}..x",
        f"/images/{name}.x",
        f"images/../{name}.x",
        f"a/{name}.x",
    ):
        assert not ITEM_PATH.fullmatch(bad)
