"""Agents over the wire: a token is good once, a key tells whose agent it is, nothing else lets one in."""

from __future__ import annotations

from typing import Any

import pytest

SPOOL = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def far(server: Any) -> Any:
    body = {"name": "far", "provider": "incus", "connection_method": "agent-poll"}
    assert server.post("/api/clusters", json=body).status_code == 201
    return server


def enrolled(server: Any) -> str:
    token = server.post("/api/clusters/far/enroll").json()["token"]
    answer = server.client.post("/iceshelves/api/agent/v1/enroll", json={"token": token, "host": "h1"})
    assert answer.status_code == 201, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.json()["settings"]["provider"] == "incus"
    return str(answer.json()["key"])


def polled(server: Any, key: str, **told: Any) -> Any:
    headers = {"Authorization": f"Bearer {key}"}
    return server.client.post("/iceshelves/api/agent/v1/poll", headers=headers, json={"spool": SPOOL, **told})


def test_a_token_is_exchanged_for_a_key(far: Any) -> None:
    key = enrolled(far)
    answer = polled(far, key, host="h1", version="1")
    assert answer.status_code == 200
    assert answer.json()["settings"]["long_poll"] is True
    shown = far.get("/api/clusters/far").text
    assert key not in shown
    assert far.get("/api/clusters/far").json()["agent"]["host"] == "h1"


def test_a_key_is_renewed_at_the_next_poll(far: Any) -> None:
    key = enrolled(far)
    polled(far, key)
    answer = far.post("/api/clusters/far/rotate")
    assert (answer.status_code, answer.json()["status"]) == (200, "done")
    newer = polled(far, key).json()["key"]
    assert newer != key
    assert polled(far, newer).json()["key"] is None
    assert polled(far, key).json()["error_code"] == "invalid_agent_key"


def test_a_revoked_agent_is_told_so(far: Any) -> None:
    key = enrolled(far)
    assert far.post("/api/clusters/far/agent/revoke").status_code == 200
    answer = polled(far, key)
    assert (answer.status_code, answer.json()["error_code"]) == (401, "agent_revoked")


def test_only_an_agents_cluster_has_one(server: Any) -> None:
    answer = server.post("/api/clusters/lab/enroll")
    assert (answer.status_code, answer.json()["error_code"]) == (400, "not_an_agents_cluster")


@pytest.mark.parametrize(
    "told",
    [
        {"spool": "x" * 99},
        {"hold": 3600},
        {"entries": [{"number": 0}]},
        {"entries": [{}] * 501},
        {"ends": {SPOOL: {"fence": 1, "status": "perfect"}}},
        {"instances": [{"name": "x", "kind": "house", "power": "running"}]},
    ],
)
def test_what_an_agent_tells_is_checked(far: Any, told: dict[str, Any]) -> None:
    answer = polled(far, enrolled(far), **told)
    assert (answer.status_code, answer.json()["error_code"]) == (400, "invalid_request")
