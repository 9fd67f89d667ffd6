from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

EVENTS = "/api/operations/op-1/events"
ACCEPTED = {
    "success": True,
    "data": {},
    "deployment_id": 7,
    "operation_id": "op-1",
    "instance_name": "web",
    "status": "pending",
}


@pytest.fixture
def ready(one_deployment: Any, events: Any, an_operation: Any) -> Any:
    """A server on which every deployment succeeds."""
    one_deployment.on("POST", "/api/deploy", ACCEPTED, status=202)
    one_deployment.stream(
        EVENTS,
        [
            *events("operation", an_operation("running", steps=[]), "1.0"),
            *events(
                "log", {"id": 1, "level": "INFO", "source": "guest", "message": "hi", "step": "x"}, "1.1"
            ),
            *events("operation", an_operation(), "2.1"),
            *events("end", {}),
        ],
    )
    return one_deployment


def sent_to_deploy(server: Any) -> Any:
    (sent,) = server.to("POST", "/api/deploy")
    return sent.json


def test_a_deployment_is_watched_to_its_end_and_says_what_now(run: Any, ready: Any) -> None:
    done = run("deploy", "hello-web", "local:web")
    assert done.code == 0
    assert sent_to_deploy(ready) == {"egg": "hello-web", "cluster": "local", "instance_name": "web"}
    assert "local:web is ready" in done.out
    assert "10.77.1.23" in done.out
    assert "iceshelves shell local:web" in done.out
    assert done.err.splitlines() == ["validate: done (1.0s)", "ensure image: done (1.0s)"]


def test_every_wish_reaches_the_server(run: Any, ready: Any, tmp_path: Path) -> None:
    parameters = tmp_path / "p.yaml"
    parameters.write_text("port: 80\ngreeting: from the file\nlist: [a]\n")
    cloud = tmp_path / "c.yaml"
    cloud.write_text("timezone: UTC\npackages: [git]\n")
    line = (
        "deploy hello-web@1.2.0 local:web -p greeting=a=b --set limits.cpu=2 --set packages=[curl,jq] "
        "--image debian/12 --vm --member n1 --profile a --profile b --timeout 1.5m --on-failure cleanup"
    )
    arguments = line.split()
    assert run(*arguments, "--param-file", str(parameters), "--cloud-config", str(cloud)).code == 0
    assert sent_to_deploy(ready) == {
        "egg": "hello-web@1.2.0",
        "cluster": "local",
        "instance_name": "web",
        "parameters": {"port": 80, "greeting": "a=b", "list": ["a"]},
        "config_overrides": {"timezone": "UTC", "packages": ["curl", "jq"], "limits.cpu": "2"},
        "image": "debian/12",
        "kind": "virtual-machine",
        "target_member": "n1",
        "profiles": ["a", "b"],
        "timeout": 90.0,
        "on_failure": "cleanup",
    }


@pytest.mark.parametrize(
    "wrong",
    [
        ("-p", "novalue"),
        ("-p", "a=1", "-p", "a=2"),
        ("--timeout", "soon"),
        ("--on-failure", "panic"),
        ("--set", "=x"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_sent(run: Any, ready: Any, wrong: tuple[str, ...]) -> None:
    assert run("deploy", "hello-web", "local:web", *wrong).code == 2
    assert not ready.to("POST", "/api/deploy")


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.yaml", "- 1"), ("a.yaml", "a: [b"), ("a.json", "{"), ("a.yaml", "a: 1\na: 2"), ("none.yaml", None)],
)
def test_a_bad_file_of_parameters_is_told_with_its_line(
    run: Any, ready: Any, tmp_path: Path, name: str, content: str | None
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    done = run("deploy", "hello-web", "local:web", "--param-file", str(tmp_path / name))
    assert done.code == 1
    assert name in done.err
    assert not ready.to("POST", "/api/deploy")


def test_without_a_cluster_the_only_one_is_meant(run: Any, ready: Any) -> None:
    assert run("deploy", "hello-web", "web").code == 0
    assert sent_to_deploy(ready)["cluster"] == "local"


@pytest.mark.parametrize("address", ["local:-x", "local:", ":web", "local:a_b", "7"])
def test_a_name_that_no_instance_can_have_is_refused_here(run: Any, ready: Any, address: str) -> None:
    done = run("deploy", "hello-web", address)
    assert done.code == 1
    assert "Hint:" in done.err
    assert not ready.sent


@pytest.mark.parametrize(
    ("clusters", "code"), [((), "no_cluster"), (({"name": "a"}, {"name": "b"}), "ambiguous_address")]
)
def test_without_a_cluster_there_must_be_one(
    run: Any, ready: Any, listed: Any, clusters: tuple[Any, ...], code: str
) -> None:
    ready.on("GET", "/api/clusters", listed("clusters", *clusters))
    done = run("deploy", "hello-web", "web")
    assert done.code == 1
    assert f"({code})" in done.err


def test_not_waiting_says_how_to_come_back(run: Any, ready: Any) -> None:
    done = run("deploy", "hello-web", "local:web", "--no-wait")
    assert (done.code, ready.to("GET", EVENTS)) == (0, [])
    assert "iceshelves operation watch op-1" in done.out


def test_programs_get_the_deployment(run: Any, ready: Any) -> None:
    done = run("deploy", "hello-web", "local:web", "--json", "id,cluster.name")
    assert done.json == {"id": 7, "cluster.name": "local"}


def test_a_failure_is_told_with_the_guests_own_words(
    run: Any, ready: Any, events: Any, an_operation: Any
) -> None:
    error = {
        "code": "cloud_init_failed",
        "message": "cloud-init failed: scripts_user.",
        "hint": "See the guest's log.",
        "details": {"guest": ["E: Unable to locate package nosuch", "\x1b[2Jexit 100"]},
    }
    steps: list[dict[str, Any]] = [
        {"name": "validate", "status": "done"},
        {"name": "cloud-init", "status": "running", "attempts": 2, "started_at": "2026-01-31T12:00:00Z"},
    ]
    failed = [
        steps[0],
        {**steps[1], "status": "failed", "finished_at": "2026-01-31T12:00:09Z", "message": "x"},
    ]
    ready.stream(
        EVENTS,
        [
            *events("operation", an_operation("running", steps=steps), "1.0"),
            *events("operation", an_operation("failed", steps=failed, error=error), "2.0"),
            *events("end", {}),
        ],
    )
    done = run("deploy", "hello-web", "local:web")
    assert (done.code, done.out) == (1, "")
    told = done.err.splitlines()
    assert told[1:4] == ["cloud init: running (attempt 2)", "cloud init: failed (9.0s)", "The guest said:"]
    assert "  E: Unable to locate package nosuch" in told
    assert "  exit 100" in told
    assert "Error: cloud-init failed: scripts_user." in told
    assert "Hint:  See the guest's log." in told
    assert any("errors.md#cloud_init_failed" in line for line in told)
    assert "iceshelves retry local:web" in told[-1]


def test_where_the_error_quotes_nobody_the_guests_last_lines_are_shown(
    run: Any, ready: Any, events: Any, an_operation: Any
) -> None:
    lines = [
        line
        for number in range(1, 31)
        for line in events(
            "log",
            {"id": number, "level": "INFO", "source": "guest", "message": f"line {number}", "step": "s"},
        )
    ]
    ready.stream(EVENTS, [*lines, *events("operation", an_operation("timeout")), *events("end", {})])
    done = run("deploy", "hello-web", "local:web")
    assert done.code == 1
    assert "  line 16\n" in done.err
    assert "  line 30\n" in done.err
    assert "  line 15\n" not in done.err


def test_somebody_elses_cancelling_is_not_a_failure_of_the_egg(
    run: Any, ready: Any, events: Any, an_operation: Any
) -> None:
    ready.stream(EVENTS, [*events("operation", an_operation("cancelled")), *events("end", {})])
    assert run("deploy", "hello-web", "local:web").code == 130


def test_ctrl_c_cancels_on_the_server_and_waits_for_the_end(
    run: Any, ready: Any, events: Any, an_operation: Any
) -> None:
    ready.on("POST", "/api/operations/op-1/cancel", {"success": True}, status=202)
    ready.stream(
        EVENTS,
        [*events("operation", an_operation("running"), "1.0"), KeyboardInterrupt()],
        [*events("operation", an_operation("cancelled"), "2.0"), *events("end", {})],
    )
    done = run("deploy", "hello-web", "local:web")
    assert done.code == 130
    assert len(ready.to("POST", "/api/operations/op-1/cancel")) == 1
    assert ready.to("GET", EVENTS)[1].headers["Last-Event-ID"] == "1.0"
    assert "Cancelling" in done.err
    assert "Error" not in done.err, "it is what was asked for"


def test_a_roll_back_that_follows_by_itself_is_told(
    run: Any, ready: Any, events: Any, an_operation: Any, deployment: Any
) -> None:
    ready.on("POST", "/api/deployments/7/update", ACCEPTED, status=202)
    ready.stream(EVENTS, [*events("operation", an_operation("cancelled")), *events("end", {})])
    following = {**deployment, "operation": an_operation("running", id="op-2")}
    ready.on("GET", "/api/deployments/7", deployment, following)
    done = run("update", "7")
    assert done.code == 130
    assert "iceshelves operation watch op-2" in done.err


def test_ctrl_c_that_comes_too_late_changes_nothing(
    run: Any, ready: Any, events: Any, an_operation: Any
) -> None:
    ready.on("POST", "/api/operations/op-1/cancel", {"error": "It is over.", "error_code": "x"}, status=409)
    ready.stream(EVENTS, [KeyboardInterrupt()], [*events("operation", an_operation()), *events("end", {})])
    assert run("deploy", "hello-web", "local:web").code == 0


def test_ctrl_c_twice_leaves_it_alone_and_says_how_to_come_back(
    run: Any, ready: Any, events: Any, an_operation: Any
) -> None:
    ready.on("POST", "/api/operations/op-1/cancel", {"success": True}, status=202)
    ready.stream(
        EVENTS, [*events("operation", an_operation("running")), KeyboardInterrupt()], [KeyboardInterrupt()]
    )
    done = run("deploy", "hello-web", "local:web")
    assert done.code == 130
    assert "Not waiting" in done.err
    assert "iceshelves operation watch op-1" in done.err
    assert len(ready.to("POST", "/api/operations/op-1/cancel")) == 1


def test_a_server_that_stays_away_leaves_the_way_back(run: Any, ready: Any) -> None:
    ready.on("GET", EVENTS, ConnectionRefusedError(111, "x"))
    done = run("deploy", "hello-web", "local:web")
    assert done.code == 1
    assert "iceshelves operation watch op-1" in done.err
    assert "Reconnecting" in done.err


def test_log_lines_that_come_twice_are_shown_once(
    run: Any, ready: Any, events: Any, an_operation: Any
) -> None:
    loud = events("log", {"id": 5, "level": "WARNING", "source": "engine", "message": "boom", "step": "s"})
    ready.stream(EVENTS, [*loud], [*loud, *events("operation", an_operation()), *events("end", {})])
    assert run("deploy", "hello-web", "local:web").err.count("boom") == 1


@pytest.fixture
def egg_directory(tmp_path: Path) -> Path:
    directory = tmp_path / "mine"
    directory.mkdir()
    (directory / "metadata.json").write_text(
        json.dumps({"name": "mine", "version": "0.1.0", "description": "d", "category": "custom"})
    )
    (directory / "cloud-init.yaml").write_text("#cloud-config\nruncmd:\n  - [echo, hello]\n")
    return directory


def test_an_egg_of_the_disk_is_imported_first(run: Any, ready: Any, egg_directory: Path) -> None:
    from iceshelves.eggs import unpack

    answer = {
        "egg_id": 9,
        "name": "mine",
        "version": "0.1.0",
        "digest": "sha256:" + "a" * 64,
        "message": "mine 0.1.0 is in the library already.",
    }
    ready.on("POST", "/api/eggs/import", answer, status=201)
    done = run("deploy", str(egg_directory), "local:web")
    assert done.code == 0
    (sent,) = ready.to("POST", "/api/eggs/import")
    assert sent.headers["Content-Type"] == "application/octet-stream"
    assert unpack(sent.body).name == "mine"
    assert sent_to_deploy(ready)["egg"] == "mine@0.1.0"
    assert "mine 0.1.0 is in the library already." in done.err


def test_a_broken_egg_is_not_even_sent(run: Any, ready: Any, egg_directory: Path) -> None:
    (egg_directory / "cloud-init.yaml").write_text("#cloud-config\nruncmd:\n  - echo a: b\n")
    done = run("deploy", str(egg_directory), "local:web")
    assert done.code == 1
    assert "cloud-init.yaml:3: error:" in done.err
    assert not ready.to("POST", "/api/eggs/import")
    assert not ready.to("POST", "/api/deploy")


def test_what_is_no_egg_at_all_is_told_with_its_place(run: Any, ready: Any, egg_directory: Path) -> None:
    (egg_directory / "metadata.json").write_text('{"name": "mine",\n b}\n')
    done = run("deploy", str(egg_directory), "local:web")
    assert done.code == 1
    assert f"{egg_directory}/metadata.json:2: error: Expecting property name" in done.err
    assert done.err.count("line 2") == 0, "the place is told once"


def test_nothing_is_imported_for_a_cluster_that_is_not_there(
    run: Any, ready: Any, egg_directory: Path
) -> None:
    missing = {"error": "There is no cluster 'locla'.", "error_code": "cluster_not_found"}
    ready.on("GET", "/api/clusters/locla", missing, status=404)
    done = run("deploy", str(egg_directory), "locla:web")
    assert done.code == 1
    assert "Did you mean local?" in done.err
    assert not ready.to("POST", "/api/eggs/import")


def test_a_misspelt_egg_gets_the_name_that_is_like_it(run: Any, ready: Any, listed: Any) -> None:
    unknown = {"error": "There is no egg 'hello-wbe'.", "error_code": "egg_not_found", "hint": "List them."}
    ready.on("POST", "/api/deploy", unknown, status=404)
    ready.on("GET", "/api/eggs", listed("eggs", {"name": "hello-web", "version": "1.2.0"}))
    assert "Did you mean hello-web?" in run("deploy", "hello-wbe", "local:web").err
    assert "The latest version of hello-web is 1.2.0." in run("deploy", "hello-web@9", "local:web").err
    assert "List them." in run("deploy", "zzz", "local:web").err


def test_a_directory_written_as_a_name_is_told_how_to_write_it(
    run: Any, ready: Any, egg_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(egg_directory.parent)
    unknown = {
        "error": "There is no egg 'mine'.",
        "error_code": "egg_not_found",
        "hint": "iceshelves egg list",
    }
    ready.on("POST", "/api/deploy", unknown, status=404)
    done = run("deploy", "mine", "local:web")
    assert done.code == 1
    assert "./mine" in done.err


@pytest.mark.parametrize(
    ("arguments", "path", "body"),
    [
        (("update", "local:web", "web@2", "-p", "a=1"), "update", {"egg": "web@2", "parameters": {"a": "1"}}),
        (("update", "7"), "update", {}),
        (("rollback", "web", "--revision", "1"), "rollback", {"revision": 1}),
        (("rollback", "web"), "rollback", {}),
        (("retry", "local:web"), "retry", {}),
    ],
)  # fmt: skip
def test_what_changes_a_deployment_waits_for_it(
    run: Any, ready: Any, arguments: tuple[str, ...], path: str, body: Any
) -> None:
    ready.on("POST", f"/api/deployments/7/{path}", ACCEPTED, status=202)
    done = run(*arguments)
    assert done.code == 0
    assert "local:web is ready" in done.out
    assert ready.to("POST", f"/api/deployments/7/{path}")[0].json == body
