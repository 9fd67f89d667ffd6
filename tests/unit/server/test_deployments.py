"""Clusters, deployments and operations over the API; the engine is idle, so work stays where it is put."""

from __future__ import annotations

from typing import Any

import pytest

from iceshelves.store.models import Deployment, Operation


def test_deploy_is_accepted_and_can_be_watched(server: Any) -> None:
    body = {"egg": "hello-web", "cluster": "lab", "instance_name": "web-1"}
    answer = server.post("/api/deploy", json=body)
    accepted = answer.json()
    assert answer.status_code == 202
    assert accepted["status"] == "pending"
    assert answer.headers["Location"] == f"/iceshelves/api/operations/{accepted['operation_id']}"
    operation = server.get(f"/api/operations/{accepted['operation_id']}").json()
    assert (operation["kind"], operation["status"], operation["cluster"]["name"]) == (
        "deploy",
        "pending",
        "lab",
    )
    assert operation["steps"][0]["name"] == "validate"
    shown = server.get(f"/api/deployments/{accepted['deployment_id']}").json()
    assert shown["operation"]["id"] == accepted["operation_id"]
    assert shown["egg"]["name"] == "hello-web"
    assert shown["instance_info"]["ipv4"] == []


@pytest.mark.parametrize("path", ["/api/deploy", "/deploy"])
@pytest.mark.parametrize("target", ["cluster_id", "target_id"])
def test_deploy_by_the_originals_form(server: Any, path: str, target: str) -> None:
    egg = server.get("/api/eggs/hello-web").json()["id"]
    answer = server.post(path, data={"egg_id": str(egg), target: "1", "instance_name": "web-2"})
    assert answer.status_code == 202, answer.text
    assert server.get("/api/deployments?name=web-2").json()["total"] == 1


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"instance_name": "not a name"}, 400, "invalid_request"),
        ({"instance_name": None}, 400, "invalid_request"),
        ({"egg_id": 1}, 400, "invalid_request"),
        ({"cluster_id": 1}, 400, "invalid_request"),
        ({"nonsense": 1}, 400, "invalid_request"),
        ({"timeout": 0}, 400, "invalid_request"),
        ({"egg": "nothing"}, 404, "egg_not_found"),
        ({"cluster": "nothing"}, 404, "cluster_not_found"),
        ({"parameters": {"prot": 80}}, 400, "invalid_parameters"),
        ({"parameters": {"port": "many"}}, 400, "invalid_parameters"),
    ],
)
def test_what_cannot_be_deployed(server: Any, change: dict[str, Any], status: int, code: str) -> None:
    body = {"egg": "hello-web", "cluster": "lab", "instance_name": "web-1", **change}
    answer = server.post("/api/deploy", json=body)
    assert (answer.status_code, answer.json()["error_code"]) == (status, code), answer.text
    assert server.get("/api/deployments").json()["total"] == 0


def test_a_name_is_taken_once(server: Any) -> None:
    server.deploy("web-1")
    answer = server.post("/api/deploy", json={"egg": "hello-web", "cluster": "lab", "instance_name": "web-1"})
    assert (answer.status_code, answer.json()["error_code"]) == (409, "deployment_exists")


def test_lists_and_filters(server: Any) -> None:
    for name in ("web-1", "web-2", "db-1"):
        server.deploy(name)
    with server.control.database.write() as session:
        session.query(Deployment).filter_by(instance_name="db-1").update({"status": "failed"})

    def names(query: str) -> list[str]:
        return [d["instance_name"] for d in server.get(f"/api/deployments?{query}").json()["deployments"]]

    assert names("") == ["db-1", "web-2", "web-1"]
    assert names("search=DB-") == ["db-1"]
    assert names("name=web-1") == ["web-1"]
    assert names("status=failed") == ["db-1"]
    assert names("cluster=lab&per_page=1&page=2") == ["web-2"]
    assert names("cluster=other") == []
    assert names("page=9") == []
    assert server.get("/api/deployments?page=9").json()["total"] == 3
    assert server.get("/api/deployments?status=odd").status_code == 400
    assert server.get("/api/operations?status=pending").json()["total"] == 3
    assert server.get("/api/operations?deployment_id=1").json()["total"] == 1


def test_one_thing_at_a_time(server: Any) -> None:
    made = server.deploy()
    path = f"/api/deployments/{made['deployment_id']}"
    for method, action in (("POST", "/update"), ("POST", "/retry"), ("DELETE", ""), ("DELETE", "/cleanup")):
        answer = server.call(method, path + action, json={} if action == "/update" else None)
        assert (answer.status_code, answer.json()["error_code"]) == (409, "operation_running"), action


def test_cancel(server: Any) -> None:
    made = server.deploy()
    path = f"/api/deployments/{made['deployment_id']}/cancel"
    answer = server.post(path)
    assert answer.status_code == 202
    assert answer.json()["operation_id"] == made["operation_id"]
    assert server.get(f"/api/operations/{made['operation_id']}").json()["cancel_requested_by"] == "admin"
    with server.control.database.write() as session:
        session.query(Operation).update({"status": "cancelled"})
    assert server.post(path).json()["error_code"] == "nothing_to_cancel"
    ended = server.post(f"/api/operations/{made['operation_id']}/cancel")
    assert (ended.status_code, ended.json()["error_code"]) == (409, "operation_ended")


def test_update_keeps_what_is_not_given(server: Any) -> None:
    made = server.deploy(parameters={"greeting": "Hello", "port": 8080})
    with server.control.database.write() as session:
        session.query(Operation).update({"status": "succeeded"})
    path = f"/api/deployments/{made['deployment_id']}"
    answer = server.post(f"{path}/update", json={"parameters": {"greeting": "Bye"}})
    assert answer.status_code == 202, answer.text
    revisions = server.get(f"{path}/revisions").json()["revisions"]
    assert [revision["number"] for revision in revisions] == [2, 1]
    assert revisions[0]["inputs"]["parameters"] == {"greeting": "Bye", "port": 8080}
    assert server.post(f"{path}/update", json={"egg": "nothing"}).status_code == 404


def test_roll_back_needs_a_good_revision_and_no_body(server: Any) -> None:
    made = server.deploy()
    with server.control.database.write() as session:
        session.query(Operation).update({"status": "failed"})
    answer = server.post(f"/api/deployments/{made['deployment_id']}/rollback")
    assert (answer.status_code, answer.json()["error_code"]) == (409, "no_such_revision")


def test_a_cluster_shows_what_its_test_found(server: Any) -> None:
    assert server.get("/api/clusters/lab").json()["status"] == "unknown"
    found = server.post("/api/clusters/lab/test").json()
    assert found["status"] == "active"
    assert {"connection", "version"} <= {check["name"] for check in found["details"]["checks"]}
    shown = server.get("/api/clusters/1").json()
    assert shown["health"]["status"] == "active"
    assert shown["health"]["checked_at"].endswith("Z")
    assert shown["metadata"]["members"]


def test_a_cluster_with_deployments_stays(server: Any) -> None:
    server.deploy()
    answer = server.call("DELETE", "/api/clusters/lab")
    assert (answer.status_code, answer.json()["error_code"]) == (409, "cluster_in_use")
    body = {"name": "empty", "provider": "fake", "endpoint_url": "fake://empty"}
    assert server.post("/api/clusters", json=body).status_code == 201
    assert server.post("/api/clusters", json=body).json()["error_code"] == "cluster_exists"
    assert server.call("DELETE", "/api/clusters/empty").status_code == 200
    assert server.get("/api/clusters/empty").status_code == 404


def test_logs_are_read_on_from_a_line(server: Any) -> None:
    from iceshelves.store.models import LogLine

    made = server.deploy()
    with server.control.database.write() as session:
        for number in range(5):
            session.add(
                LogLine(
                    tenant_id=1, deployment_id=made["deployment_id"], operation_id=made["operation_id"],
                    step="create", source="guest" if number % 2 else "engine", log_level="INFO",
                    message=f"line {number}",
                )
            )  # fmt: skip
    path = f"/api/deployments/{made['deployment_id']}/logs"

    def lines(query: str) -> list[str]:
        return [line["message"][-1] for line in server.get(f"{path}?{query}").json()["logs"]]

    assert lines("") == ["0", "1", "2", "3", "4"]
    third = server.get(path).json()["logs"][2]["id"]
    assert lines(f"after={third}") == ["3", "4"]
    assert lines("source=guest") == ["1", "3"]
    assert lines("per_page=2&page=2") == ["2", "3"]
    assert lines("operation_id=other") == []
