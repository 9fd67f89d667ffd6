"""The parts that all subjects share."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import Path
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)

from iceshelves.core import clock
from iceshelves.store.queries.pages import Window

#: a moment as the whole API writes it
Moment = Annotated[
    datetime,
    PlainSerializer(clock.to_text, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-01-31T12:00:00.000Z"]}),
]


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


# PostgreSQL's text has no place for NUL
_NO_NUL = r"^[^\x00]*$"
Words = Annotated[str, StringConstraints(max_length=200, pattern=_NO_NUL)]
Prose = Annotated[str, StringConstraints(max_length=10_000, pattern=_NO_NUL)]
ObjectName = Annotated[
    str, StringConstraints(max_length=63, pattern=r"^[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?$")
]
#: in JSON 7.0 is a whole number too
WHOLE = BeforeValidator(_whole)
Id = Annotated[int, Field(ge=1, le=2**31 - 1), WHOLE]
PathId = Annotated[int, Path(ge=1, le=2**31 - 1, examples=[1])]
#: a number, a name, or ``name@version``
EggPath = Annotated[
    str, Path(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9._+@-]+$", examples=["hello-web"])
]
#: a number or a name
ClusterPath = Annotated[
    str, Path(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9._-]+$", examples=["lab"])
]


class Shown(BaseModel):
    """An object that goes out, filled from the attributes of a row."""

    model_config = ConfigDict(from_attributes=True, frozen=True, defer_build=True)


class Body(BaseModel):
    """An object that comes in.  Unknown fields are mistakes: they would be silently without effect.

    A number is a number and no text that looks like one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Asked(BaseModel):
    """What a query string asks for.  It is all text there, so text that reads as a number is one."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Paging(Asked):
    """Which page of a list."""

    page: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    per_page: Annotated[int, Field(ge=1, le=100)] = 20

    @property
    def window(self) -> Window:
        """The same for a query."""
        return Window(self.page, self.per_page)


class FoundFinding(Shown):
    """One thing that lint has to say about an egg."""

    level: str
    code: str
    message: str
    file: str
    line: int
    column: int | None
    field: str | None
    hint: str | None


class Failure(Shown):
    """Why something failed: a stable code, one line, and what to do about it."""

    code: str
    message: str
    hint: str | None = None
    docs: str = ""
    details: dict[str, Any] = Field(default_factory=dict)


class Named(Shown):
    """What refers to an object for people and programs."""

    id: int
    name: str


class AcceptedWork(Shown):
    """Work that has been written down; it goes on at ``/operations/{operation_id}``."""

    deployment_id: int
    operation_id: str
    instance_name: str
    status: str = "pending"
    message: str


class Problem(BaseModel):
    """An error (RFC 9457).  ``error_code`` is stable; ``code`` is the HTTP status, as the original had it."""

    type: str
    title: str
    status: int
    detail: str
    success: bool
    error: str
    code: int
    error_code: str
    hint: str | None
    details: dict[str, Any]
    request_id: str
