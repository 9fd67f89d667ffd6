"""The daemon's refusals as errors of our tree, in the daemon's own words."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from typing import Final

import aiohttp

from iceshelves.core.errors import (
    Cancelled,
    Conflict,
    Denied,
    Failed,
    IceShelvesError,
    InvalidInput,
    NotFound,
    Temporary,
)

# Incus and LXD answer many conflicts as a plain 500 or a failed operation; only the words tell.
_EXISTS: Final = ("already exists", "unique constraint failed", "is already in use")
#: what a member says of another that it has lost, or could not pass a request on to (Go's words for that)
_AWAY: Final = re.compile(
    r"missing event connection with target cluster member"
    r'|\b(?:get|post|put|patch|delete) "https://[^"]+/1\.0/[^"]*": '
)
_BUSY: Final = (
    "is busy running",
    "database is locked",
    "too many requests",
    "not yet initialized",
    "server isn't ready yet",  # a member that has just come back
)
# How Incus answers, as a 500, a certificate that is restricted to other projects.
_NO_RIGHTS: Final = "user does not have permission"
# What is missing, by the daemons' words for it.
_MISSING: Final[Mapping[str, str]] = {
    "instance not found": "instance_not_found",
    "image not found": "image_not_found",
    "image not provided": "image_not_found",
    "snapshot not found": "snapshot_not_found",
    "storage volume not found": "volume_not_found",
    "profile not found": "profile_not_found",
    "network not found": "network_not_found",
    "storage pool not found": "pool_not_found",
    "no such object": "hypervisor_not_found",
}

_REMEDIES: Final[Mapping[int, str]] = {
    errno.ENOENT: "There is no such socket: check the path, and that the daemon is installed and started.",
    errno.ECONNREFUSED: "Nobody listens there: start the daemon, such as with 'systemctl start incus'.",
    errno.EACCES: (
        "The server's user may not open {where}: add it to the socket's group (incus-admin or lxd), "
        "then start the server again."
    ),
}

_TROUBLE: Final = "The hypervisor's own log says more: incus info NAME --show-log, or journalctl -u incus."


def refusal(status: int, words: str) -> IceShelvesError:
    """What an error answer with HTTP ``status`` and the daemon's ``words`` means."""
    words = _one_line(words)
    if status in (401, 403) or _NO_RIGHTS in words.lower():
        return Denied(
            f"The hypervisor refused: {words}",
            code="hypervisor_denied",
            hint="The connection may lack rights on this project; iceshelves cluster test shows them.",
        )
    if status == 404:
        return _not_found(words)
    if status == 412:
        return Conflict(
            "The object was changed by somebody else in the meantime.",
            code="changed_meanwhile",
            hint="Try again; nothing was written.",
        )
    if status == 409:
        return _exists(words)
    if status in (429, 502, 503, 504):
        return _busy(words)
    told = failure(words)
    if status == 400 and type(told) is Failed:
        return InvalidInput(
            f"The hypervisor does not accept this: {words}",
            code="hypervisor_refused",
            hint="Check the egg's configuration and devices against the hypervisor's documentation.",
        )
    return told


def failure(words: str) -> IceShelvesError:
    """What a failed operation's ``words`` mean."""
    words = _one_line(words)
    low = words.lower()
    if _AWAY.search(low):
        return _member_away(words)
    if any(mark in low for mark in _BUSY):
        return _busy(words)
    if any(mark in low for mark in _EXISTS):
        return _exists(words)
    if any(mark in low for mark in _MISSING):
        return _not_found(words)
    return Failed(f"The hypervisor failed: {words}", code="hypervisor_failed", hint=_TROUBLE)


def cancelled(words: str) -> IceShelvesError:
    """An operation that somebody cancelled on the hypervisor."""
    return Cancelled(
        f"The hypervisor's operation was cancelled: {_one_line(words)}", code="operation_cancelled"
    )


def unreachable(where: str, reason: BaseException) -> Temporary:
    """Nobody answers at ``where``."""
    number = _errno(reason)
    why = os.strerror(number) if number else _reason(reason)
    return Temporary(
        f"The hypervisor at {where} cannot be reached: {why}.",
        code="hypervisor_unreachable",
        hint=_REMEDIES.get(number or 0, "Check that the daemon runs and is not overloaded.").format(
            where=where
        ),
        delay=2.0,
    )


def bad_answer(where: str, what: str) -> Failed:
    """Somebody answers at ``where``, but not as Incus or LXD would."""
    return Failed(
        f"The answer from {where} is not one of Incus or LXD: {what}",
        code="bad_answer",
        hint="Check that the address is that of an Incus or LXD daemon.",
    )


def _exists(words: str) -> Conflict:
    return Conflict(f"The hypervisor has one already: {words}", code="already_exists")


def _not_found(words: str) -> NotFound:
    low = words.lower()
    code = next((code for mark, code in _MISSING.items() if mark in low), "hypervisor_not_found")
    return NotFound(f"The hypervisor has not got it: {words}", code=code)


def _busy(words: str) -> Temporary:
    return Temporary(f"The hypervisor is busy: {words}", code="hypervisor_busy", delay=1.0)


def _member_away(words: str) -> Temporary:
    return Temporary(
        f"A member of the cluster does not answer the others: {words}",
        code="member_unreachable",
        hint="iceshelves cluster members shows which one it is.",
        delay=2.0,
    )


def _one_line(words: str) -> str:
    return " ".join(words.split())[:1000] or "it gave no reason"


def _errno(reason: BaseException) -> int | None:
    """The system's number of what went wrong, wherever in the chain it is."""
    cause: BaseException | None = reason
    while cause is not None:
        inner = getattr(cause, "os_error", cause)  # aiohttp's name for it
        # ssl counts its own errors from 1, and aiohttp passes them on as if they were the system's.
        of_ssl = isinstance(inner, OSError) and str(inner.strerror).startswith("[SSL")
        if isinstance(inner, OSError) and inner.errno in errno.errorcode and not of_ssl:
            return inner.errno
        cause = cause.__cause__
    return None


def _reason(reason: BaseException) -> str:
    if isinstance(reason, (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError)):
        return "the connection was closed before the answer was complete"  # their own words hold the pieces
    if isinstance(reason, TimeoutError) and not str(reason):
        return "no answer in time"
    return _one_line(str(reason) or type(reason).__name__).rstrip(".")
