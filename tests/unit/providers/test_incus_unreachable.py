"""A socket that nobody answers at: the remedy fits the reason."""

from __future__ import annotations

import errno
import ssl

import aiohttp
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


def test_a_number_of_ssl_is_none_of_the_system() -> None:
    broken = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:2580)")
    message = unreachable("https://hv:8443", OSError(*broken.args)).message
    assert "wrong version number" in message
    assert "not permitted" not in message


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (TimeoutError(), "no answer in time"),
        (aiohttp.ServerDisconnectedError(), "closed before the answer was complete"),
        (aiohttp.ClientPayloadError("<ContentLengthError: 400>"), "closed before the answer was complete"),
    ],
)
def test_a_reason_of_the_libraries_is_put_into_words(reason: Exception, words: str) -> None:
    message = unreachable("/x", reason).message
    assert message.endswith(f"{words}.")
    assert "Error" not in message
