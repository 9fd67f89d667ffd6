"""What a route answers: each kind renders the response and describes it in OpenAPI, so that the two agree.

A success carries ``success`` and, twice, what was asked for: an object lies flat in the answer and under
``data``, a list under its own name and under ``data``.  The documents of the original show both forms.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from pydantic import BaseModel, TypeAdapter
from starlette.responses import Response

from iceshelves.store.queries.pages import Slice

_JSON: Final = "application/json"
_COUNT: Final = {"type": "integer", "minimum": 0}
_PAGING: Final = ("page", "per_page", "total", "total_pages")


class Answer(Protocol):
    """A described answer."""

    @property
    def status(self) -> int:
        """The status of success."""
        ...

    @property
    def models(self) -> tuple[type[BaseModel], ...]:
        """The models that the description refers to."""
        ...

    def describe(self) -> dict[str, Any]:
        """The OpenAPI response object."""
        ...


def reference(model: type[BaseModel]) -> dict[str, Any]:
    """A reference to the schema of ``model``."""
    return {"$ref": f"#/components/schemas/{model.__name__}"}


@dataclass(frozen=True)
class Item:
    """One object.  ``status`` 202 means that its work goes on and can be watched at ``Location``."""

    model: type[BaseModel]
    status: int = 200
    description: str = "Done"

    @property
    def models(self) -> tuple[type[BaseModel], ...]:
        """The model of the object."""
        return (self.model,)

    def describe(self) -> dict[str, Any]:
        """The object's own members, ``success`` and ``data``."""
        envelope = {
            "type": "object",
            "properties": {"success": {"const": True}, "data": reference(self.model)},
            "required": ["success", "data"],
        }
        return _described(self.description, {"allOf": [reference(self.model), envelope]})

    def answer(
        self, value: BaseModel, *, status: int | None = None, headers: Mapping[str, str] | None = None
    ) -> Response:
        """The response that holds ``value``."""
        plain = value.model_dump_json().encode()
        flat = plain[1:] if plain != b"{}" else b"}"
        body = b'{"success":true,"data":' + plain + (b"," if plain != b"{}" else b"") + flat
        return Response(body, status or self.status, headers, _JSON)


@dataclass(frozen=True)
class Listing:
    """One page of a list called ``name``."""

    name: str
    model: type[BaseModel]
    status: int = 200
    description: str = "One page of the list"

    @property
    def models(self) -> tuple[type[BaseModel], ...]:
        """The model of the entries."""
        return (self.model,)

    @functools.cached_property
    def _adapter(self) -> TypeAdapter[list[Any]]:
        return TypeAdapter(list[self.model])  # type: ignore[name-defined]  # known when it is made

    def describe(self) -> dict[str, Any]:
        """The list by both names, and the paging in both forms."""
        entries = {"type": "array", "items": reference(self.model)}
        paging = dict.fromkeys(_PAGING, _COUNT)
        properties = {
            "success": {"const": True},
            self.name: entries,
            "data": entries,
            **paging,
            "pagination": {"type": "object", "properties": paging, "required": list(_PAGING)},
        }
        schema = {"type": "object", "properties": properties, "required": list(properties)}
        return _described(self.description, schema)

    def answer(self, found: Slice) -> Response:
        """The response that holds the rows of ``found``; their attributes fill the model."""
        return self.answer_values(self._adapter.validate_python(found.rows, from_attributes=True), found)

    def answer_values(self, values: list[Any], found: Slice) -> Response:
        """The response that holds ``values``, made from the rows of ``found``."""
        entries = self._adapter.dump_json(values)
        window = found.window
        paging = b'"page":%d,"per_page":%d,"total":%d,"total_pages":%d' % (
            window.page,
            window.per_page,
            found.total,
            found.pages,
        )
        body = b'{"success":true,"%s":%s,"data":%s,%s,"pagination":{%s}}' % (
            self.name.encode(),
            entries,
            entries,
            paging,
            paging,
        )
        return Response(body, self.status, None, _JSON)


@dataclass(frozen=True)
class Other:
    """An answer that is not JSON: a file, a stream, a page, figures."""

    media_type: str
    description: str
    status: int = 200
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})
    #: whether it may be any JSON instead
    or_json: bool = False

    @property
    def models(self) -> tuple[type[BaseModel], ...]:
        """None."""
        return ()

    def describe(self) -> dict[str, Any]:
        """Just the media types."""
        content: dict[str, Any] = {self.media_type: {"schema": dict(self.schema)}}
        if self.or_json:
            content[_JSON] = {"schema": {}}
        return {"description": self.description, "content": content}


@dataclass(frozen=True)
class Bare:
    """An object whose shape is fixed by others, without an envelope: health."""

    model: type[BaseModel]
    status: int = 200
    description: str = "Done"

    @property
    def models(self) -> tuple[type[BaseModel], ...]:
        """The model of the object."""
        return (self.model,)

    def describe(self) -> dict[str, Any]:
        """The object alone."""
        return _described(self.description, reference(self.model))

    def answer(self, value: BaseModel, status: int | None = None) -> Response:
        """The response that holds ``value``."""
        return Response(value.model_dump_json().encode(), status or self.status, None, _JSON)


def _described(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {_JSON: {"schema": schema}}}
