"""The OpenAPI description is complete: what routes say of themselves is in it."""

from __future__ import annotations

import re
from typing import Any

from iceshelves.server.app import all_routes
from iceshelves.server.routes import GuardedRoute


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, op) for path, ops in document["paths"].items() for method, op in ops.items()]


def test_every_route_is_described(shared_server: Any) -> None:
    document = shared_server.client.get("/iceshelves/api/openapi.json").json()
    described = {(path, method.upper()) for path, method, _ in operations(document)}
    routes = {
        (route.path_format, method)
        for route in all_routes()
        if isinstance(route, GuardedRoute) and route.include_in_schema
        for method in route.methods or ()
    }
    assert described == routes
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(names)) == len(names)


def test_answers_and_access_are_described(shared_server: Any) -> None:
    document = shared_server.client.get("/iceshelves/api/openapi.json").json()
    for path, method, operation in operations(document):
        answers = operation["responses"]
        assert {"500", "503"} <= set(answers), path
        assert "422" not in answers
        assert operation["summary"]
        if "security" in operation:
            assert "401" in answers
            assert ("403" in answers) == (operation["x-permission"] not in ("any", "agent"))
        if method != "get" and "agent/" not in path:
            assert "409" in answers
        for status, answer in answers.items():
            if int(status) >= 400 and path.rsplit("/", 1)[1] not in ("health", "healthz"):
                originals = "/agent/v1/" not in path and "/api/agent/" in path and int(status) < 405
                kind = "application/json" if originals else "application/problem+json"
                assert list(answer["content"]) == [kind], (path, status)


def test_references_lead_somewhere(shared_server: Any) -> None:
    answer = shared_server.client.get("/iceshelves/api/openapi.json")
    schemas = answer.json()["components"]["schemas"]
    wanted = set(re.findall(r'"#/components/schemas/([^"]+)"', answer.text))
    assert wanted <= set(schemas)
    assert set(schemas) - wanted <= {"Problem"}, "schemas that nothing refers to"


def test_what_is_answered_fits_what_is_described(shared_server: Any) -> None:
    import jsonschema_rs

    document = shared_server.client.get("/iceshelves/api/openapi.json").json()
    for path in (
        "/api/eggs", "/api/eggs/hello-web", "/api/clusters/lab", "/api/deployments", "/api/deployments/1",
        "/api/operations", "/api/users", "/api/audit", "/api/whoami", "/api/templates",
    ):  # fmt: skip
        operation = _described(document, f"/iceshelves{path}")
        schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
        validator = jsonschema_rs.Draft202012Validator({**schema, "components": document["components"]})
        validator.validate(shared_server.get(path).json())


def _described(document: dict[str, Any], path: str) -> dict[str, Any]:
    exact = document["paths"].get(path)
    if exact is None:
        template = next(t for t in document["paths"] if re.fullmatch(re.sub(r"{\w+}", "[^/]+", t), path))
        exact = document["paths"][template]
    found: dict[str, Any] = exact["get"]
    return found
