"""Semantic versions, against the specification's own examples."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iceshelves.core.errors import InvalidInput
from iceshelves.eggs import SemVer

numbers = st.integers(0, 10**6)
identifiers = st.integers(0, 999).map(str) | st.from_regex(
    r"[0-9a-z]{0,3}[a-z-][0-9a-z-]{0,3}", fullmatch=True
)
versions = st.builds(SemVer, numbers, numbers, numbers, st.lists(identifiers, max_size=3).map(tuple))


def test_precedence_of_the_specification() -> None:
    ordered = [
        *("1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11"),
        *("1.0.0-rc.1", "1.0.0", "2.0.0", "2.1.0", "2.1.1", "2.10.0"),
    ]
    parsed = [SemVer.parse(text) for text in ordered]
    assert sorted([*parsed[5:], *parsed[:5]]) == parsed
    assert [str(version) for version in parsed] == ordered


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "1.2",
        "01.2.3",
        "1.2.3-",
        "1.2.3-01",
        "1.2.3+",
        "v1.2.3",
        "1.2.3 ",
        "1.2.3\n",
        "1.2.3-ä",
        "9" * 99,
    ],
)
def test_what_is_no_version(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        SemVer.parse(text)
    assert caught.value.code == "invalid_version"


def test_build_metadata_is_kept_and_does_not_count() -> None:
    assert str(SemVer.parse("1.2.3-rc.1+b.001")) == "1.2.3-rc.1+b.001"
    assert SemVer.parse("1.2.3+a") == SemVer.parse("1.2.3+b")
    assert hash(SemVer.parse("1.2.3+a")) == hash(SemVer.parse("1.2.3+b"))


@given(versions)
def test_round_trip(version: SemVer) -> None:
    assert SemVer.parse(str(version)) == version


@given(versions, versions, versions)
def test_the_order_is_total(a: SemVer, b: SemVer, c: SemVer) -> None:
    assert (a < b) + (b < a) + (a == b) == 1
    if a < b < c:
        assert a < c
