"""The API's questions on PostgreSQL: every list, filter and page answers as it does on SQLite."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from iceshelves.core import clock
from iceshelves.core.settings import Settings
from iceshelves.deploy.control import ControlPlane
from iceshelves.server.app import create_app
from iceshelves.store.models import LogLine, Operation
from testbed.engine import IdleEngine


@dataclass
class Server:
    control: ControlPlane
    client: TestClient

    def ask(self, method: str, path: str, **sent: Any) -> Any:
        answer = self.client.request(method, f"/iceshelves/api{path}", **sent)
        assert answer.status_code < 300, answer.text
        return answer.json()


@pytest.fixture(params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    key = base64.b64encode(os.urandom(32)).decode()
    control = ControlPlane(Settings(data=tmp_path, database_url=url, encryption_key=key), IdleEngine())
    assert control.first_token is not None
    headers = {"Authorization": f"Bearer {control.first_token.reveal()}"}
    with TestClient(create_app(control), headers=headers) as client:
        made = Server(control, client)
        made.ask("POST", "/clusters", json={"name": "lab", "provider": "fake", "endpoint_url": "fake://pg"})
        for name in ("web-1", "web-2"):
            made.ask("POST", "/deploy", json={"egg": "hello-web", "cluster": "lab", "instance_name": name})
        yield made


def test_eggs(server: Server) -> None:
    def names(query: str) -> list[str]:
        return [egg["name"] for egg in server.ask("GET", f"/eggs?per_page=100&{query}")["eggs"]]

    assert "hello-web" in names("search=HELLO")
    assert "debian-base" in names("tag=debian")
    assert names("tag=deb") == names("search=%25") == []
    assert server.ask("GET", "/eggs/hello-web")["versions"][0]["latest"] is True
    server.ask("PATCH", "/eggs/debian-base", json={"is_active": False})


def test_deployments_operations_and_logs(server: Server) -> None:
    found = server.ask("GET", "/deployments?status=pending&cluster=lab&search=WEB-2&per_page=1")
    assert [deployment["instance_name"] for deployment in found["deployments"]] == ["web-2"]
    shown = server.ask("GET", f"/deployments/{found['deployments'][0]['id']}")
    operation = shown["operation"]
    assert operation["steps"][0]["name"] == "validate"
    with server.control.database.write() as session:
        for number in range(3):
            session.add(
                LogLine(
                    tenant_id=1, deployment_id=shown["id"], operation_id=operation["id"], step="create",
                    source="engine", log_level="INFO", message=str(number),
                )
            )  # fmt: skip
        session.get_one(Operation, operation["id"]).status = "failed"
    lines = server.ask("GET", f"/deployments/{shown['id']}/logs?per_page=2&page=2")
    assert ([line["message"] for line in lines["logs"]], lines["total"]) == (["2"], 3)
    assert server.ask("GET", "/operations?status=pending")["total"] == 1
    events = server.client.get(f"/iceshelves/api/operations/{operation['id']}/events").text
    assert [line for line in events.split("\n") if line.startswith("event")][-2:] == [
        "event: operation",
        "event: end",
    ]


def test_a_repeated_request_and_the_figures(server: Server) -> None:
    body = {"egg": "hello-web", "cluster": "lab", "instance_name": "web-3"}
    headers = {"Idempotency-Key": "3f1c"}
    first = server.ask("POST", "/deploy", json=body, headers=headers)
    assert server.ask("POST", "/deploy", json=body, headers=headers) == first
    figures = server.client.get("/iceshelves/metrics").text
    assert "iceshelves_active_deployments 3.0" in figures
    assert server.ask("GET", "/audit")["audit"][0]["action"] == "deployment.create"
    assert server.ask("GET", "/users")["total"] == 1


def test_many_who_change_one_deployment_at_once(server: Server) -> None:
    """One is let through; the others are told that it is busy, and nobody meets an error of the server."""
    first = server.ask("GET", "/deployments?name=web-1")["deployments"][0]["id"]
    with server.control.database.write() as session:
        session.execute(sa.update(Operation).values(status="failed", finished_at=clock.now()))
    changes = ("update", "retry", "retry", "update", "retry", "update")

    def change(what: str) -> tuple[int, str]:
        sent = {"json": {}} if what == "update" else {}
        answer = server.client.post(f"/iceshelves/api/deployments/{first}/{what}", **sent)
        return answer.status_code, answer.json().get("error_code", "")

    with ThreadPoolExecutor(len(changes)) as pool:
        answers = sorted(pool.map(change, changes))
    assert answers[0] == (202, "")
    assert {status for status, _ in answers[1:]} == {409}
    assert {code for _, code in answers[1:]} <= {"operation_running", "revision_changed"}


def test_a_cluster_is_not_deleted_under_a_deployment(server: Server) -> None:
    def act(number: int) -> int:
        name = f"lab-{number // 2}"
        if number % 2:
            return server.client.delete(f"/iceshelves/api/clusters/{name}").status_code
        body = {"egg": "hello-web", "cluster": name, "instance_name": "web"}
        return server.client.post("/iceshelves/api/deploy", json=body).status_code

    for number in range(8):
        body = {"name": f"lab-{number}", "provider": "fake", "endpoint_url": f"fake://race-{number}"}
        server.ask("POST", "/clusters", json=body)
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(act, range(16)))
    for deployed, deleted in zip(statuses[::2], statuses[1::2], strict=True):
        assert (deployed, deleted) in {(202, 409), (404, 200)}
