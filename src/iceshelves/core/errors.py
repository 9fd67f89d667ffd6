"""The one error tree.

Every failure that a user can meet is an :class:`IceShelvesError`: a stable ``code``, one line in the user's
terms, a ``hint`` that says how to mend it, and a place in the docs.  The classes below are *kinds*; they say
who can do something about the failure, and the API derives its status from them.  A raise site gives the
code, for example ``NotFound("No egg is called 'web'.", code="egg_not_found", hint="iceshelves egg list")``.

Retrying has two words only: :class:`Temporary` (try again after ``delay`` seconds) and everything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class IceShelvesError(Exception):
    """Base of all errors that are shown to a user.

    ``message`` is one line, ``hint`` one sentence or a command, ``details`` JSON values for programs.
    """

    default_code: ClassVar[str] = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        hint: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.hint = hint
        self.details: dict[str, Any] = dict(details or {})

    @property
    def docs(self) -> str:
        """Where the documentation explains this code, as a path below the repository."""
        return f"docs/reference/errors.md#{self.code}"

    def to_json(self) -> dict[str, Any]:
        """The error as JSON values; the same shape in the API, in logs and in stored operations."""
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "docs": self.docs,
            "details": self.details,
        }


class InvalidInput(IceShelvesError):
    """What was given cannot be used as it is; the message says where and the hint how to mend it."""

    default_code = "invalid_input"


class Unauthenticated(IceShelvesError):
    """Nobody is logged in, or the token is unknown, expired or revoked."""

    default_code = "unauthenticated"


class Denied(IceShelvesError):
    """The actor is known, but its role does not allow this."""

    default_code = "denied"


class NotFound(IceShelvesError):
    """There is no such object, or it belongs to another tenant: both answer alike."""

    default_code = "not_found"


class Conflict(IceShelvesError):
    """The object exists already, or is in a state in which this cannot be done."""

    default_code = "conflict"


class Unsupported(IceShelvesError):
    """The hypervisor, or this version of it, cannot do this."""

    default_code = "unsupported"


class Failed(IceShelvesError):
    """It was tried and did not succeed: a guest's or a hypervisor's own failure, in its own words."""

    default_code = "failed"


class TimedOut(IceShelvesError):
    """It did not finish before its deadline."""

    default_code = "timed_out"


class Cancelled(IceShelvesError):
    """Somebody asked for it to stop."""

    default_code = "cancelled"


class Temporary(IceShelvesError):
    """The other side cannot be reached or is busy; worth another try after ``delay`` seconds."""

    default_code = "unavailable"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        hint: str | None = None,
        details: Mapping[str, Any] | None = None,
        delay: float = 1.0,
    ) -> None:
        super().__init__(message, code=code, hint=hint, details=details)
        self.delay = delay
