"""The Range header."""

from __future__ import annotations

import pytest

from iceshelves.core.errors import IceShelvesError
from iceshelves.core.ranges import span


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("", (0, 10, True)), ("bytes=0-", (0, 10, False)), ("bytes=2-4", (2, 5, False)),
        ("bytes=9-99", (9, 10, False)), ("bytes=-4", (6, 10, False)), ("bytes=-40", (0, 10, False)),
        ("bytes=0-1,3-4", (0, 10, True)), ("items=0-1", (0, 10, True)), ("bytes=-", (0, 10, True)),
    ],
)  # fmt: skip
def test_ranges(asked: str, found: tuple[int, int, bool]) -> None:
    assert span(asked, 10) == found


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=5-4", "bytes=-0"])
def test_ranges_without_a_byte(asked: str) -> None:
    with pytest.raises(IceShelvesError) as refused:
        span(asked, 10)
    assert refused.value.code == "invalid_range"
