"""Every error has one shape, and says nothing that it should not."""

from __future__ import annotations

import re
from typing import Any

import pytest

from iceshelves.core import errors
from iceshelves.server import problems
from iceshelves.server.middleware import MAX_BODY
from iceshelves.server.schemas.common import Problem


def check(answer: Any, status: int, code: str) -> dict[str, Any]:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    told: dict[str, Any] = answer.json()
    Problem.model_validate(told, strict=True)
    assert (told["success"], told["code"], told["status"], told["error_code"]) == (
        False,
        status,
        status,
        code,
    )
    assert told["error"] == told["detail"]
    assert told["request_id"] == answer.headers["X-Request-Id"]
    return told


def test_nothing_there_and_wrong_method(server: Any) -> None:
    check(server.get("/api/nothing"), 404, "no_such_address")
    answer = server.call("PUT", "/api/eggs")
    check(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"] == "GET, POST"
    assert server.call("GET", "/api/eggs/").status_code == 404  # no redirects between spellings


def test_a_body_that_does_not_fit(server: Any) -> None:
    told = check(server.post("/api/users", json={"name": "x", "rule": "admin"}), 400, "invalid_request")
    assert {field["field"] for field in told["details"]["fields"]} == {"body.role", "body.rule"}
    told = check(
        server.post("/api/users", json={"name": "x", "role": "s3cret-value"}), 400, "invalid_request"
    )
    assert "s3cret-value" not in str(told)  # what was sent may be a secret


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "json_syntax"),
        (b'{"name": "a", "name": "b"}', "duplicate_key"),
        (b"[" * 100_000, "too_deep"),
        (b'{"name": NaN}', "json_syntax"),
        (b'{"name": "\\ud800"}', "json_syntax"),
        (b'{"name": "\xff"}', "not_utf8"),
        (b"[" + b"1," * 30_000 + b"1]", "too_many_nodes"),
    ],
)
def test_json_is_read_within_bounds(server: Any, body: bytes, code: str) -> None:
    answer = server.post("/api/users", content=body, headers={"Content-Type": "application/json"})
    check(answer, 400, code)


def test_text_that_a_database_cannot_hold(server: Any) -> None:
    for sent in ({"name": "a\u0000b", "provider": "fake"}, {"name": "ab", "description": "\u0000"}):
        check(server.post("/api/clusters", json=sent), 400, "invalid_request")
    check(server.get("/api/eggs?search=%00"), 400, "invalid_request")


def test_too_large_by_what_it_says_and_by_what_it_is(server: Any) -> None:
    def drip() -> Any:
        for _ in range(MAX_BODY // 2**20 + 1):
            yield b"x" * 2**20

    headers = {"Content-Type": "application/octet-stream"}
    for content in (b"x" * (MAX_BODY + 1), drip()):
        check(server.post("/api/eggs/import", content=content, headers=headers), 413, "body_too_large")


def test_what_nobody_foresaw(server: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the secret inside")

    monkeypatch.setattr("iceshelves.store.queries.clusters.page", fail)
    answer = server.get("/api/clusters")
    told = check(answer, 500, "internal_error")
    assert "secret" not in answer.text
    assert told["request_id"] in caplog.text
    assert "the secret inside" in caplog.text


def test_every_kind_of_error_has_a_status() -> None:
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.IceShelvesError)
    ]
    for kind in kinds:
        status = problems.status_of(kind("x"))
        assert status in problems.TITLES
        assert (status == 500) == (kind is errors.IceShelvesError), kind


def test_a_temporary_error_says_when_to_come_back() -> None:
    answer = problems.answer(errors.Temporary("busy", delay=2.2), "r")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "3")


def test_safe_headers_everywhere(server: Any) -> None:
    for path in ("", "/api", "/api/nothing", "/api/eggs", "/api/openapi.json"):
        headers = server.client.get(f"/iceshelves{path}").headers
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert (headers["X-Content-Type-Options"], headers["X-Frame-Options"]) == ("nosniff", "DENY")
        assert "server" not in headers


def test_request_ids(server: Any) -> None:
    assert (
        server.get("/api", headers={"X-Request-Id": "trace-4711-a"}).headers["X-Request-Id"] == "trace-4711-a"
    )
    for odd in ("short", "with space inside", "x" * 65):
        given = server.get("/api", headers={"X-Request-Id": odd}).headers["X-Request-Id"]
        assert re.fullmatch("[0-9a-f]{32}", given)


def test_the_page_and_health_are_public_and_show_nothing_of_a_tenant(server: Any) -> None:
    server.deploy("private-name")
    page = server.client.get("/iceshelves")
    assert page.headers["content-type"].startswith("text/html")
    assert "private-name" not in page.text
    assert "<script" not in page.text
    for path in ("/healthz", "/health", "/api/healthz", "/api/health"):
        health = server.client.get(f"/iceshelves{path}").json()
        assert (health["status"], health["app"], health["database"]) == ("healthy", "iceshelves", "healthy")


def test_health_without_a_database(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise errors.Temporary("gone", code="database_unavailable")

    monkeypatch.setattr(server.control.database, "read", fail)
    answer = server.client.get("/iceshelves/healthz")
    assert (answer.status_code, answer.json()["status"]) == (503, "degraded")
