"""The daemon's refusals as errors of our tree, in the daemon's own words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

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
_BUSY: Final = ("is busy running", "database is locked", "too many requests", "not yet initialized")
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

_TROUBLE: Final = "The hypervisor's own log says more: incus info NAME --show-log, or journalctl -u incus."


def refusal(status: int, words: str) -> IceShelvesError:
    """What an error answer with HTTP ``status`` and the daemon's ``words`` means."""
    words = _one_line(words)
    if status in (401, 403):
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
    return Temporary(
        f"The hypervisor at {where} cannot be reached ({_reason(reason)}).",
        code="hypervisor_unreachable",
        hint=f"Check that the daemon runs, that {where} exists and that this user may open it.",
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


def _one_line(words: str) -> str:
    return " ".join(words.split())[:1000] or "it gave no reason"


def _reason(reason: BaseException) -> str:
    return _one_line(str(reason) or type(reason).__name__)
