"""The OpenAPI description: the framework's, completed with what our routes say of themselves.

It is made when it is first asked for: it takes longer than all the rest of the start.
"""

from __future__ import annotations

import functools
import json
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.routing import BaseRoute

from iceshelves import __version__
from iceshelves.server import problems
from iceshelves.server.answers import reference
from iceshelves.server.idempotency import REPLAYED
from iceshelves.server.routes import GuardedRoute
from iceshelves.server.schemas.common import Problem

_SUMMARY: Final = "One open control plane for system containers and virtual machines."
_TEMPLATE: Final = "#/components/schemas/{model}"
_KEY_PARAMETER: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": f"Repeats of a request under the same key get its first answer, with {REPLAYED}: true.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}


class Description:
    """The description of an application."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    @functools.cached_property
    def document(self) -> dict[str, Any]:
        """The description as JSON values."""
        document = get_openapi(
            title="IceShelves",
            version=__version__,
            summary=_SUMMARY,
            openapi_version="3.1.0",
            routes=self._app.routes,
        )
        routes = guarded(self._app.routes)
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        schemas.update(_schemas(routes))
        document["components"]["securitySchemes"] = {
            "token": {"type": "http", "scheme": "bearer"},
            "agentKey": {"type": "apiKey", "in": "header", "name": "X-Agent-Key"},
        }
        for route in routes:
            for method in (route.methods or set()) if route.include_in_schema else ():
                _complete(document["paths"][route.path_format][method.lower()], route, schemas)
        return document

    def text(self) -> bytes:
        """The description as it is served."""
        return json.dumps(self.document, ensure_ascii=False, separators=(",", ":")).encode()


def guarded(routes: list[BaseRoute]) -> list[GuardedRoute]:
    """The routes that are ours."""
    return [route for route in routes if isinstance(route, GuardedRoute)]


def _schemas(routes: list[GuardedRoute]) -> dict[str, Any]:
    models: set[type[BaseModel]] = {Problem}
    for route in routes:
        models.update(*(answer.models for answer in route.answers))
    ordered = sorted(models, key=lambda model: model.__name__)
    _, definitions = models_json_schema(
        [(model, "serialization") for model in ordered], ref_template=_TEMPLATE
    )
    found: dict[str, Any] = definitions["$defs"]
    return found


def _complete(operation: dict[str, Any], route: GuardedRoute, schemas: dict[str, Any]) -> None:
    operation["responses"] = {
        **{str(answer.status): answer.describe() for answer in route.answers},
        **{str(status): _error(status) for status in _statuses(operation, route)},
    }
    if route.access == "agent":
        operation["security"] = [{"agentKey": []}, {"token": []}]
        operation["x-permission"] = "agent"
    elif route.access != "public":
        operation["security"] = [{"token": []}]
        operation["x-permission"] = str(route.access)
        if not (route.methods or set()) <= {"GET"}:
            operation.setdefault("parameters", []).append(_KEY_PARAMETER)
    for parameter in operation.get("parameters", ()):
        parameter["schema"] = _without_null(parameter["schema"])
    if route.takes_forms:
        content = operation["requestBody"]["content"]
        content["application/x-www-form-urlencoded"] = {"schema": _form(schemas, content["application/json"])}


def _form(schemas: dict[str, Any], media: dict[str, Any]) -> dict[str, Any]:
    """What of a JSON object a form can hold: single values, none of them null."""
    model = schemas[media["schema"]["$ref"].rsplit("/", 1)[1]]
    plain = {name: _without_null(schema) for name, schema in model["properties"].items()}
    simple = {name: schema for name, schema in plain.items() if schema.get("type") not in ("object", "array")}
    return {"type": "object", "properties": simple, "required": model["required"]}


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter that may be left out has no null: in a URL that would be a word."""
    options = [option for option in schema.get("anyOf", ()) if option.get("type") != "null"]
    rest: dict[str, Any] = {key: value for key, value in schema.items() if key != "anyOf"}
    if len(options) == 1:
        rest.update(options[0])
    elif options:
        rest["anyOf"] = options
    return rest


def _statuses(operation: dict[str, Any], route: GuardedRoute) -> list[int]:
    """The errors that a route may answer with."""
    found = {500, 503, *route.errors}
    if operation.get("parameters") or operation.get("requestBody"):
        found.add(400)
    if operation.get("requestBody"):
        found.add(413)
    if route.access != "public":
        found.add(401)
        if route.access not in ("any", "agent"):
            found.add(403)
        if route.access != "agent" and not (route.methods or set()) <= {"GET"}:
            found |= {400, 409}  # the idempotency key
    return sorted(found - {answer.status for answer in route.answers})


def _error(status: int) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    if status in (409, 503):
        headers["Retry-After"] = {
            "schema": {"type": "integer"},
            "description": "Seconds to wait, if waiting helps",
        }
    described: dict[str, Any] = {
        "description": problems.TITLES[status],
        "content": {problems.MEDIA_TYPE: {"schema": reference(Problem)}},
    }
    if headers:
        described["headers"] = headers
    return described
