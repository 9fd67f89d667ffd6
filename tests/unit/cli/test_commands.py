from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def line(number: int, source: str, step: str, message: str) -> dict[str, Any]:
    return {
        "id": number,
        "timestamp": "2026-01-31T12:00:01.500Z",
        "level": "INFO",
        "message": message,
        "step": step,
        "source": source,
    }


LOGS = [line(1, "engine", "create", "creating"), line(2, "guest", "cloud-init", "hi\x1b[2J there")]


def test_list_shows_where_each_deployment_is(run: Any, one_deployment: Any) -> None:
    heading, line = run("list", "--cluster", "local", "--status", "completed").out.splitlines()
    assert heading.split() == ["ID", "NAME", "EGG", "REV", "STATUS", "AGE", "BY"]
    assert line.split()[:6] == ["7", "local:web", "hello-web", "1.2.0", "2", "completed"]
    assert one_deployment.sent[0].query == "page=1&per_page=100&cluster=local&status=completed"


def test_a_list_that_was_cut_says_so(run: Any, one_deployment: Any) -> None:
    assert "--limit 0" in run("list", "--limit", "1").err
    assert run("list").err == ""


def test_show_finds_a_deployment_by_name_address_and_number(run: Any, one_deployment: Any) -> None:
    for address in ("web", "local:web", "7"):
        assert "10.77.1.23" in run("show", address).out
    queries = [sent.query for sent in one_deployment.to("GET", "/api/deployments")]
    assert queries == ["page=1&per_page=10&name=web", "page=1&per_page=10&name=web&cluster=local"]


def test_show_tells_why_it_failed_and_what_was_done(
    run: Any, one_deployment: Any, deployment: Any, an_operation: Any
) -> None:
    error = {"message": "cloud-init failed.", "hint": "Look.", "details": {"guest": ["no such package"]}}
    one_deployment.on(
        "GET", "/api/deployments/7", {**deployment, "error": error, "operation": an_operation("failed")}
    )
    out = run("show", "7").out
    assert "cloud-init failed." in out
    assert "no such package" in out
    assert "ensure image" in out


def test_a_name_on_several_clusters_needs_its_cluster(
    run: Any, server: Any, listed: Any, deployment: Any
) -> None:
    other = {**deployment, "id": 8, "cluster": {"id": 2, "name": "lab"}}
    server.on("GET", "/api/deployments", listed("deployments", deployment, other))
    done = run("show", "web")
    assert done.code == 1
    assert "local:web, lab:web" in done.err


def test_a_name_that_nothing_has_is_not_found(run: Any, server: Any, listed: Any) -> None:
    server.on("GET", "/api/deployments", listed("deployments"))
    done = run("show", "local:web")
    assert (done.code, done.out) == (1, "")
    assert "Error: No deployment is called 'web' on local." in done.err


def test_logs_tell_the_guests_lines_from_ours_and_are_harmless(
    run: Any, one_deployment: Any, listed: Any
) -> None:
    one_deployment.on("GET", "/api/deployments/7/logs", listed("logs", *LOGS))
    assert run("logs", "web").out.splitlines() == [
        "12:00:01.500 create: creating",
        "12:00:01.500 cloud-init| hi there",
    ]
    assert run("logs", "web", "--guest").out.splitlines()[-1] == "hi there"
    assert "source=guest" in one_deployment.sent[-1].query
    assert run("logs", "web", "--format", "json").json == LOGS


def test_following_goes_on_where_the_list_ended_until_ctrl_c(
    run: Any, one_deployment: Any, listed: Any, events: Any, an_operation: Any
) -> None:
    one_deployment.on("GET", "/api/deployments/7/logs", listed("logs", *LOGS))
    new = line(3, "guest", "cloud-init", "new")
    engine = line(4, "engine", "create", "not the guest's")
    one_deployment.stream(
        "/api/deployments/7/events",
        [
            *events("operation", an_operation()),
            *events("log", LOGS[1]),
            *events("log", new),
            *events("log", engine),
            KeyboardInterrupt(),
        ],
    )
    done = run("logs", "web", "-f", "--guest")
    assert done.code == 0
    assert done.out.splitlines() == ["creating", "hi there", "new"]


@pytest.fixture
def deletable(one_deployment: Any, events: Any, an_operation: Any) -> Any:
    one_deployment.on("DELETE", "/api/deployments/7", {"operation_id": "op-1"}, status=202)
    one_deployment.stream(
        "/api/operations/op-1/events", [*events("operation", an_operation()), *events("end", {})]
    )
    return one_deployment


def test_without_a_terminal_nothing_is_deleted_unless_told_twice(run: Any, deletable: Any) -> None:
    done = run("delete", "web")
    assert done.code == 1
    assert "--yes" in done.err
    assert not deletable.to("DELETE", "/api/deployments/7")
    assert run("delete", "web", "--yes").out == "local:web is deleted.\n"
    assert len(deletable.to("DELETE", "/api/deployments/7")) == 1


@pytest.mark.parametrize(("typed", "deleted"), [("web", True), ("wbe", False), ("", False)])
def test_on_a_terminal_the_name_must_be_typed(
    run: Any, deletable: Any, monkeypatch: pytest.MonkeyPatch, typed: str, deleted: bool
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: typed)
    assert run("delete", "web").code == (0 if deleted else 1)
    assert bool(deletable.to("DELETE", "/api/deployments/7")) is deleted


@pytest.mark.parametrize(("end", "code"), [("cancelled", 0), ("succeeded", 1)])
def test_cancel_says_whether_it_was_in_time(
    run: Any, one_deployment: Any, events: Any, an_operation: Any, end: str, code: int
) -> None:
    one_deployment.on("POST", "/api/deployments/7/cancel", {"operation_id": "op-1"}, status=202)
    one_deployment.stream(
        "/api/operations/op-1/events", [*events("operation", an_operation(end)), *events("end", {})]
    )
    assert run("cancel", "web").code == code


def test_operations_can_be_listed_and_shown(run: Any, server: Any, listed: Any, an_operation: Any) -> None:
    found = an_operation("failed", cluster={"id": 1, "name": "local"}, error={"message": "no", "hint": "do"})
    server.on("GET", "/api/operations", listed("operations", found))
    server.on("GET", "/api/operations/op-1", found)
    assert "local:web" in run("operation", "list").out
    shown = run("operation", "show", "op-1").out
    assert "ensure image" in shown
    assert "no" in shown
    assert run("operation", "show", "op-1", "--json", "status").json == {"status": "failed"}


TEST_REPORT = {
    "status": "error",
    "details": {
        "message": "m",
        "checks": [
            {"name": "socket", "ok": True, "message": "there", "remedy": None},
            {"name": "rights", "ok": False, "message": "denied", "remedy": "Join the group."},
        ],
    },
}


def test_a_cluster_is_added_and_tested(run: Any, server: Any, tmp_path: Path) -> None:
    options = tmp_path / "options.yaml"
    options.write_text("delays: {create: 0.5}\n")
    server.on("POST", "/api/clusters", {"cluster_id": 1}, status=201)
    server.on("POST", "/api/clusters/lab/test", {"status": "active", "details": {"checks": []}})
    command = ["cluster", "add", "lab", "--provider", "fake", "--max-operations", "4"]
    done = run(*command, "--options", str(options))
    assert done.code == 0
    assert server.sent[0].json == {
        "name": "lab",
        "provider": "fake",
        "connection_method": "unix-socket",
        "endpoint_url": "",
        "project": "default",
        "description": "",
        "options": {"delays": {"create": 0.5}},
        "max_operations": 4,
    }


def test_where_incus_listens_is_left_to_the_server(run: Any, server: Any) -> None:
    server.on("POST", "/api/clusters", {"cluster_id": 1}, status=201)
    assert run("cluster", "add", "local", "--no-test").code == 0
    assert server.sent[0].json["endpoint_url"] == ""
    assert len(server.sent) == 1


def test_a_failed_check_of_a_cluster_comes_with_its_remedy(run: Any, server: Any) -> None:
    server.on("POST", "/api/clusters/lab/test", TEST_REPORT)
    done = run("cluster", "test", "lab")
    assert done.code == 1
    assert done.out.splitlines() == ["✓ socket: there", "✗ rights: denied", "    Join the group."]
    assert run("cluster", "test", "lab", "--format", "json").code == 1


def test_clusters_can_be_listed_shown_and_removed(run: Any, server: Any, listed: Any) -> None:
    cluster = {
        "id": 1,
        "name": "lab",
        "provider": "incus",
        "status": "active",
        "metadata": {"members": [{"name": "n1"}], "resources": {"cpu_cores": 2}},
        "health": {"status": "ok", "message": "fine"},
    }
    server.on("GET", "/api/clusters", listed("clusters", cluster))
    server.on("GET", "/api/clusters/lab", cluster)
    server.on("DELETE", "/api/clusters/lab", {"success": True})
    assert "lab" in run("cluster", "list").out
    assert "n1" in run("cluster", "show", "lab").out
    assert run("cluster", "delete", "lab").code == 1
    assert run("cluster", "delete", "lab", "--yes").code == 0


def test_a_new_users_token_stands_alone_on_standard_output(run: Any, server: Any, listed: Any) -> None:
    server.on("POST", "/api/users", {"user_id": 2, "token": "isv_x"}, status=201)
    server.on("GET", "/api/users", listed("users", {"id": 2, "name": "eve", "role": "viewer"}))
    server.on("POST", "/api/users/2/token", {"token": "isv_y"})
    server.on("DELETE", "/api/users/2", {"success": True})
    assert run("user", "add", "eve", "--role", "operator").out == "isv_x\n"
    assert server.sent[0].json == {"name": "eve", "role": "operator"}
    assert run("user", "token", "eve").out == "isv_y\n"
    assert "eve" in run("user", "list").out
    assert run("user", "remove", "eve", "--yes").code == 0
    assert run("user", "remove", "adam", "--yes").code == 1


def test_doctor_ends_well_when_everything_does(run: Any, server: Any, listed: Any) -> None:
    server.on("GET", "/api", {"version": "0.1.0", "api_version": "1.0"})
    server.on("GET", "/api/healthz", {"status": "healthy", "database": "ok"})
    server.on("GET", "/api/whoami", {"name": "admin", "role": "admin", "permissions": ["clusters:write"]})
    server.on("GET", "/api/clusters", listed("clusters", {"name": "lab"}))
    server.on("POST", "/api/clusters/lab/test", TEST_REPORT)
    report = {check["name"]: check for check in run("doctor", "--format", "json").json["checks"]}
    assert report["token"]["ok"]
    assert report["cluster lab: rights"] == {
        "name": "cluster lab: rights",
        "ok": False,
        "message": "denied",
        "remedy": "Join the group.",
    }
    done = run("doctor")
    assert done.code == 1
    assert "Join the group." in done.out


def test_doctor_stops_at_a_server_that_is_not_there(run: Any, server: Any) -> None:
    server.on("GET", "/api", ConnectionRefusedError(111, "x"))
    done = run("doctor")
    assert done.code == 1
    assert "✗ server" in done.out
    assert "iceshelves serve" in done.out
    assert "token" not in done.out.replace("the token travels in clear", "")


def test_version_works_without_a_server(run: Any, server: Any) -> None:
    server.on("GET", "/api", ConnectionRefusedError(111, "x"))
    done = run("version", "--format", "json")
    assert done.code == 0
    assert done.json["server"] is None
    server.on("GET", "/api", {"version": "9.9.9", "api_version": "1.0"})
    assert "9.9.9" in run("version").out


def test_an_error_names_its_place_in_the_docs_and_the_fields_that_are_wrong(run: Any, server: Any) -> None:
    problem = {
        "error": "The request is not valid.",
        "error_code": "invalid_request",
        "hint": "Mend it.",
        "details": {"fields": [{"field": "a", "message": "too long"}, {"field": "b", "message": "missing"}]},
    }
    server.on("GET", "/api/operations", problem, status=400)
    done = run("operation", "list")
    assert (done.code, done.out) == (1, "")
    assert done.err.splitlines() == [
        "Error: The request is not valid.",
        "       a: too long",
        "       b: missing",
        "Hint:  Mend it.",
        "See:   docs/reference/errors.md#invalid_request (invalid_request)",
    ]


@pytest.mark.parametrize("listen", ["8000", "host:", ":80", "host:99999", "host:http"])
def test_where_to_listen_must_be_a_host_and_a_port(run: Any, listen: str) -> None:
    assert run("serve", "--listen", listen).code == 2


def test_revisions_are_listed(run: Any, one_deployment: Any, listed: Any) -> None:
    entry = {
        "number": 2,
        "egg": {"id": 3, "name": "hello-web", "version": "1.2.0"},
        "image": "debian/13",
        "status": "completed",
        "created_by": "admin",
        "created_on": "2026-01-31T12:00:00.000Z",
    }
    one_deployment.on("GET", "/api/deployments/7/revisions", listed("revisions", entry))
    assert run("revisions", "local:web", "--json", "number,egg.version").json == [
        {"number": 2, "egg.version": "1.2.0"}
    ]
    assert "hello-web 1.2.0" in run("revisions", "web").out


def test_the_audit_says_who_did_what(run: Any, server: Any, listed: Any) -> None:
    entry = {
        "id": 1,
        "timestamp": "2026-01-31T12:00:00.000Z",
        "actor": "ole",
        "action": "deployment.create",
        "object": "local:web",
        "outcome": "allowed",
    }
    server.on("GET", "/api/audit", listed("audit", entry))
    (row,) = run("audit", "list").out.splitlines()[1:]
    assert row.split() == ["2026-01-31T12:00:00.000Z", "ole", "deployment.create", "local:web", "allowed"]


def test_a_misspelt_deployment_gets_the_one_that_is_like_it(run: Any, server: Any, listed: Any) -> None:
    entry = {"id": 7, "cluster": {"name": "local"}, "instance_name": "web"}
    server.on("GET", "/api/deployments", listed("deployments"), listed("deployments", entry))
    assert "Did you mean web?" in run("show", "wbe").err


def test_a_cluster_that_fails_its_test_says_how_to_go_on(run: Any, server: Any) -> None:
    server.on("POST", "/api/clusters", {"success": True}, status=201)
    checks = [{"name": "connection", "ok": False, "message": "no socket", "remedy": "Start it."}]
    server.on("POST", "/api/clusters/lab/test", {"status": "error", "details": {"checks": checks}})
    done = run("cluster", "add", "lab")
    assert done.code == 1
    assert "iceshelves cluster delete lab" in done.err
