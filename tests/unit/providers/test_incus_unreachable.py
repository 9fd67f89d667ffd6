"""A socket that nobody answers at: the remedy fits the reason."""

from __future__ import annotations

import errno

import pytest

from iceshelves.providers.incus.errors import unreachable


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOENT, "no such socket"),
        (errno.ECONNREFUSED, "start the daemon"),
        (errno.EACCES, "group"),
        (errno.EPIPE, "daemon runs"),
    ],
)
def test_the_remedy_fits_the_reason(number: int, remedy: str) -> None:
    wrapped = ConnectionError("Cannot connect to unix socket /x ssl:default")
    wrapped.__cause__ = OSError(number, "why")
    error = unreachable("/x", wrapped)
    assert remedy in str(error.hint)
    assert "ssl" not in error.message


def test_a_reason_without_a_number_is_told_in_its_own_words() -> None:
    assert "closed" in unreachable("/x", ConnectionError("closed")).message
