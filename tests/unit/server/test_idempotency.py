"""The same request twice is done once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from iceshelves.core import clock
from iceshelves.core.errors import Temporary
from iceshelves.store.models import IdempotencyKey

BODY = {"egg": "hello-web", "cluster": "lab", "instance_name": "web-1"}


def deploy(server: Any, key: str = "key-1", who: str = "admin", **change: Any) -> Any:
    return server.post("/api/deploy", who, json={**BODY, **change}, headers={"Idempotency-Key": key})


def test_a_repetition_gets_the_first_answer(server: Any) -> None:
    first, again = deploy(server), deploy(server)
    assert first.status_code == again.status_code == 202
    assert first.json() == again.json()
    assert first.headers["Location"] == again.headers["Location"]
    assert again.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    assert server.get("/api/deployments").json()["total"] == 1


def test_a_refusal_did_nothing_so_the_same_request_may_succeed_later(server: Any) -> None:
    assert deploy(server, cluster="later").status_code == 404
    body = {"name": "later", "provider": "fake", "endpoint_url": "fake://later"}
    assert server.post("/api/clusters", json=body).status_code == 201
    assert deploy(server, cluster="later").status_code == 202


def test_another_request_under_the_same_key(server: Any) -> None:
    deploy(server)
    answer = deploy(server, instance_name="web-2")
    assert (answer.status_code, answer.json()["error_code"]) == (409, "idempotency_key_reused")


def test_a_key_belongs_to_who_sent_it(server: Any) -> None:
    deploy(server)
    answer = deploy(server, who="operator", instance_name="web-2")
    assert answer.status_code == 202
    assert deploy(server, who="operator", instance_name="web-3", key="key-2").status_code == 202


def test_a_request_that_is_still_running(server: Any) -> None:
    deploy(server)
    with server.control.database.write() as session:
        session.query(IdempotencyKey).update({"status": None})
    answer = deploy(server)
    assert (answer.status_code, answer.json()["error_code"]) == (409, "request_in_progress")
    assert answer.headers["Retry-After"] == "1"
    with server.control.database.write() as session:  # its server was killed
        session.query(IdempotencyKey).update({"created_on": clock.now() - timedelta(minutes=3)})
    assert deploy(server).json()["error_code"] == "deployment_exists"  # it is really made again


def test_a_day_later_the_key_is_free(server: Any) -> None:
    deploy(server)
    with server.control.database.write() as session:
        session.query(IdempotencyKey).update({"created_on": clock.now() - timedelta(hours=25)})
    assert deploy(server, instance_name="web-2").status_code == 202


def test_a_failure_of_the_server_is_not_kept(server: Any, monkeypatch: Any) -> None:
    def fail(*_: object) -> None:
        raise Temporary("busy")

    with monkeypatch.context() as patched:
        patched.setattr(server.control.deployments, "create", fail)
        assert deploy(server).status_code == 503
    assert deploy(server).status_code == 202


def test_a_new_token_is_not_kept_in_clear(server: Any) -> None:
    headers = {"Idempotency-Key": "user-1"}
    made = server.post("/api/users", json={"name": "robot", "role": "viewer"}, headers=headers)
    token = made.json()["token"]
    with server.control.database.read() as session:
        row = session.query(IdempotencyKey).one()
    assert token.encode() not in row.body
    again = server.post("/api/users", json={"name": "robot", "role": "viewer"}, headers=headers)
    assert again.json()["token"] == token


def test_odd_keys(server: Any) -> None:
    for key in ("", "x" * 256, "tab\there"):
        answer = deploy(server, key=key)
        assert (answer.status_code, answer.json()["error_code"]) == (400, "invalid_idempotency_key"), key
