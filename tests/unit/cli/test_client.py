from __future__ import annotations

import http.client
import socket
import ssl
from typing import Any

import pytest

from iceshelves.cli.client import Client, segment
from iceshelves.core.errors import (
    Conflict,
    Denied,
    Failed,
    InvalidInput,
    NotFound,
    Temporary,
    TimedOut,
    Unauthenticated,
)


def test_one_connection_serves_many_calls_and_carries_the_token(server: Any, client: Client) -> None:
    server.on("GET", "/api/whoami", {"success": True, "data": {"name": "admin"}, "name": "admin"})
    assert client.get("/api/whoami") == {"name": "admin"}
    client.get("/api/whoami")
    assert server.connections == 1
    assert server.sent[0].headers["Authorization"] == "Bearer isv_a-token-of-a-test"


def test_what_is_none_is_left_out_of_the_query_and_the_rest_is_quoted(server: Any, client: Client) -> None:
    server.on("GET", "/api/eggs", {"eggs": []})
    client.get("/api/eggs", search="a&b c", category=None)
    assert server.sent[0].query == "search=a%26b+c"


@pytest.mark.parametrize(
    "loss", [http.client.RemoteDisconnected("gone"), BrokenPipeError(32, "x"), ConnectionResetError(104, "x")]
)
def test_a_lost_answer_is_asked_for_once_more_with_the_same_key(
    server: Any, client: Client, loss: Exception
) -> None:
    server.on("POST", "/api/deploy", loss, {"operation_id": "op"})
    assert client.post("/api/deploy", {"a": 1})["operation_id"] == "op"
    first, second = server.sent
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]
    assert first.body == second.body == b'{"a": 1}'
    assert server.connections == 2


def test_different_requests_have_different_keys_and_reading_has_none(server: Any, client: Client) -> None:
    server.on("POST", "/api/x", {})
    server.on("GET", "/api/x", {})
    client.post("/api/x")
    client.post("/api/x")
    client.get("/api/x")
    keys = [sent.headers.get("Idempotency-Key") for sent in server.sent]
    assert keys[0] != keys[1]
    assert keys[2] is None


def test_a_second_loss_is_told(server: Any, client: Client) -> None:
    server.on("GET", "/api", http.client.RemoteDisconnected("gone"))
    with pytest.raises(Temporary) as caught:
        client.get("/api")
    assert caught.value.code == "server_unreachable"
    assert len(server.sent) == 2


def test_while_the_first_try_is_still_answered_its_answer_is_waited_for(
    server: Any, client: Client, reply: Any
) -> None:
    busy = reply(409, {"error": "running", "error_code": "request_in_progress"}, {"Retry-After": "1"})
    server.on("POST", "/api/deploy", ConnectionResetError(104, "x"), busy, busy, {"operation_id": "op"})
    assert client.post("/api/deploy")["operation_id"] == "op"
    assert len({sent.headers["Idempotency-Key"] for sent in server.sent}) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidInput),
        (401, Unauthenticated),
        (403, Denied),
        (404, NotFound),
        (409, Conflict),
        (500, Failed),
        (502, Failed),
        (503, Temporary),
        (504, TimedOut),
    ],
)
def test_a_problem_is_the_error_that_it_was_on_the_server(
    server: Any, client: Client, status: int, kind: type[Exception]
) -> None:
    problem = {
        "title": "T",
        "error": "No egg is called 'x'.",
        "code": status,
        "error_code": "egg_x",
        "hint": "Do this.",
        "details": {"a": 1},
    }
    server.on("GET", "/api/eggs/x", problem, status=status)
    with pytest.raises(kind) as caught:
        client.get("/api/eggs/x")
    error: Any = caught.value
    assert (type(error), error.code, error.hint, error.details) == (kind, "egg_x", "Do this.", {"a": 1})


def test_an_internal_error_names_its_request(server: Any, client: Client) -> None:
    server.on("GET", "/api", {"error": "Something went wrong.", "request_id": "r-9"}, status=500)
    with pytest.raises(Failed, match="r-9"):
        client.get("/api")


@pytest.mark.parametrize(("status", "kind"), [(200, Failed), (404, Failed), (502, Temporary)])
def test_an_answer_that_is_not_ours_is_said_to_be_so(
    server: Any, client: Client, reply: Any, status: int, kind: type[Exception]
) -> None:
    server.on("GET", "/api", reply(status, b"<html>nginx</html>"))
    with pytest.raises(kind):
        client.get("/api")


@pytest.mark.parametrize(
    ("loss", "kind", "code"),
    [
        (ConnectionRefusedError(111, "refused"), Temporary, "server_unreachable"),
        (TimeoutError(), TimedOut, "server_timed_out"),
        (ssl.SSLCertVerificationError(1, "self-signed"), Failed, "certificate_not_trusted"),
        (socket.gaierror(-2, "unknown"), Temporary, "server_unreachable"),
    ],
)
def test_why_there_is_no_answer(
    server: Any, client: Client, loss: Exception, kind: type[Exception], code: str
) -> None:
    if isinstance(loss, ssl.SSLCertVerificationError):
        loss.verify_message = "self-signed certificate"
    server.on("GET", "/api", loss)
    with pytest.raises(kind) as caught:
        client.get("/api")
    error: Any = caught.value
    assert error.code == code


def test_a_refused_connection_is_not_tried_again(server: Any, client: Client) -> None:
    server.on("GET", "/api", ConnectionRefusedError(111, "refused"))
    with pytest.raises(Temporary):
        client.get("/api")
    assert len(server.sent) == 1


def entries(client: Client, limit: int = 0) -> list[Any]:
    return list(client.items("/api/eggs", "eggs", limit=limit, category=None))


def test_lists_are_read_page_after_page(server: Any, client: Client, listed: Any) -> None:
    server.on(
        "GET",
        "/api/eggs",
        listed("eggs", 1, 2, pages=3),
        listed("eggs", 3, 4, page=2, pages=3),
        listed("eggs", 5, page=3, pages=3),
    )
    assert entries(client) == [1, 2, 3, 4, 5]
    assert [sent.query for sent in server.sent] == [f"page={n}&per_page=100" for n in (1, 2, 3)]


def test_a_limit_asks_for_no_more_than_it_needs(server: Any, client: Client, listed: Any) -> None:
    server.on("GET", "/api/eggs", listed("eggs", 1, 2, pages=3))
    assert entries(client, 2) == [1, 2]
    assert [sent.query for sent in server.sent] == ["page=1&per_page=2"]


def test_a_list_that_shrinks_while_it_is_read_ends(server: Any, client: Client, listed: Any) -> None:
    server.on("GET", "/api/eggs", listed("eggs", 1, pages=9), listed("eggs", pages=9))
    assert entries(client) == [1]


def test_a_name_cannot_leave_its_segment_of_the_path() -> None:
    assert segment("../users?x=1#y") == "..%2Fusers%3Fx%3D1%23y"
    assert segment("web@1.0.0+a") == "web%401.0.0%2Ba"
