from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

EVENTS = "/api/operations/op-1/events"
ACCEPTED = {"build_id": 4, "operation_id": "op-1", "appliance": "web"}
LOCK = json.dumps({"architecture": "amd64", "packages": []})
BUILD: dict[str, Any] = {
    "id": 4,
    "appliance": "web",
    "architecture": "amd64",
    "types": ["container"],
    "compression": "release",
    "status": "succeeded",
    "channel": "stable",
    "gate": {"id": 1, "name": "local"},
    "operation_id": "op-1",
    "result": {
        "version": "1.22.1",
        "serial": "20260131_1200",
        "packages": 140,
        "images": [{"type": "container", "fingerprint": "f" * 64, "size": 66 * 1024**2}],
        "published": {"serial": "20260131_1200", "outcome": "published"},
    },
    "error": None,
    "created_by": "admin",
    "created_on": "2026-01-31T12:00:00.000Z",
    "started_at": "2026-01-31T12:00:00.000Z",
    "completed_at": "2026-01-31T12:00:42.000Z",
    "lock": LOCK,
}


@pytest.fixture
def folder(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The recipe ``web`` in the present folder."""
    monkeypatch.chdir(tmp_path)
    assert run("appliance", "new", "web").code == 0
    return tmp_path / "web"


@pytest.fixture
def ready(server: Any, events: Any, an_operation: Any) -> Any:
    """A server on which every build succeeds."""
    server.on("POST", "/api/builds", ACCEPTED, status=202)
    server.on("GET", "/api/builds/4", BUILD)
    line = {"id": 1, "level": "INFO", "source": "engine", "message": "[pack] done", "step": "build",
            "timestamp": "2026-01-31T12:00:41.000Z", "operation_id": "op-1"}  # fmt: skip
    server.stream(
        EVENTS,
        [
            *events("log", line, "1.1"),
            *events("operation", an_operation(kind="build"), "2.1"),
            *events("log", {**line, "id": 2, "message": "later"}, "2.2"),
            *events("end", {}),
        ],
    )
    return server


def asked_for(server: Any) -> Any:
    (sent,) = server.to("POST", "/api/builds")
    return sent.json


def test_a_folder_is_sent_built_and_told_about_and_its_lock_is_written(
    run: Any, ready: Any, folder: Path
) -> None:
    (folder / "files" / "motd").write_bytes(b"\xff\x00")
    done = run("image", "build", "./web")
    assert done.code == 0
    body = asked_for(ready)
    sent = {name: base64.b64decode(content) for name, content in body.pop("files").items()}
    assert sent == {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "appliance.lock"
    }
    assert body == {"channel": "stable"}
    assert "web 1.22.1 for amd64 is built after 42.0s." in done.out
    assert f"{'f' * 64} (container, 66.0 MiB)" in done.out
    assert "iceshelves image remote-line" in done.out
    assert (folder / "appliance.lock").read_text() == LOCK
    assert "Wrote web/appliance.lock" in done.err


def test_a_lock_that_is_there_is_built_and_stays(run: Any, ready: Any, folder: Path) -> None:
    kept = LOCK.replace("[]", "[1]")
    (folder / "appliance.lock").write_text(kept)
    assert run("image", "build", "web").code == 0
    assert asked_for(ready)["lock"] == kept
    assert "appliance.lock" not in asked_for(ready)["files"]
    assert (folder / "appliance.lock").read_text() == kept


def test_a_new_lock_replaces_the_old_one(run: Any, ready: Any, folder: Path) -> None:
    (folder / "appliance.lock").write_text("{}")
    assert run("image", "build", "web", "--new-lock").code == 0
    assert "lock" not in asked_for(ready)
    assert (folder / "appliance.lock").read_text() == LOCK


def test_the_lock_of_another_architecture_is_left_out_and_left_alone(
    run: Any, ready: Any, folder: Path
) -> None:
    (folder / "appliance.lock").write_text(LOCK)
    done = run("image", "build", "web", "--arch", "arm64")
    assert done.code == 0
    assert "lock" not in asked_for(ready)
    assert "another architecture" in done.err
    assert (folder / "appliance.lock").read_text() == LOCK


def test_a_name_without_a_folder_is_built_in_and_every_wish_is_sent(
    run: Any, ready: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("the.lock").write_text(LOCK)
    line = (
        "image build web --arch arm64 --type container --type virtual-machine --fast --gate local "
        "--channel testing --timeout 10m --lock the.lock"
    )
    done = run(*line.split())
    assert done.code == 0
    assert asked_for(ready) == {
        "appliance": "web",
        "architecture": "arm64",
        "types": ["container", "virtual-machine"],
        "compression": "fast",
        "gate": "local",
        "channel": "testing",
        "timeout": 600.0,
        "lock": LOCK,
    }
    assert sorted(path.name for path in tmp_path.glob("*")) == ["the.lock"]


def test_nothing_is_published_or_waited_for_where_that_is_asked_for(run: Any, ready: Any) -> None:
    done = run("image", "build", "web", "--no-publish", "--detach")
    assert (done.code, asked_for(ready)) == (0, {"appliance": "web"})
    assert "iceshelves operation watch op-1" in done.out
    assert not ready.to("GET", EVENTS)


def test_a_recipe_with_errors_is_told_and_not_sent(run: Any, ready: Any, folder: Path) -> None:
    recipe = folder / "appliance.yaml"
    recipe.write_text(recipe.read_text().replace("packages: []", "packages: nginx"))
    done = run("image", "build", "web")
    assert done.code == 1
    assert "web/appliance.yaml:" in done.err
    assert "recipe_has_errors" in done.err
    assert not ready.to("POST", "/api/builds")


def test_what_a_server_does_not_take_is_not_sent(run: Any, ready: Any, folder: Path) -> None:
    (folder / "files" / "motd").write_bytes(bytes(768 * 1024 + 1))
    done = run("image", "build", "web")
    assert (done.code, "recipe_too_large" in done.err) == (1, True)
    assert not ready.to("POST", "/api/builds")


@pytest.mark.parametrize("content", [None, b"\xff\xfe", bytes(1024 * 1024 + 1)])
def test_a_lock_that_cannot_be_one_is_told(
    run: Any, ready: Any, tmp_path: Path, content: bytes | None
) -> None:
    lock = tmp_path / "the.lock"
    if content is not None:
        lock.write_bytes(content)
    done = run("image", "build", "web", "--lock", str(lock))
    assert (done.code, "invalid_lock" in done.err) == (1, True)
    assert not ready.to("POST", "/api/builds")


def test_a_failed_build_says_why_and_where_to_look_and_writes_no_lock(
    run: Any, ready: Any, folder: Path, events: Any, an_operation: Any
) -> None:
    error = {"code": "packages_gone", "message": "No mirror has nginx 1.", "hint": "Make a new lock."}
    failed = an_operation("failed", error=error)
    ready.stream(EVENTS, [*events("operation", failed, "1.0"), *events("end", {})])
    done = run("image", "build", "web")
    assert (done.code, done.out) == (1, "")
    assert "No mirror has nginx 1." in done.err
    assert "iceshelves image logs 4" in done.err
    assert not (folder / "appliance.lock").exists()


def test_programs_get_the_build(run: Any, ready: Any) -> None:
    assert run("image", "build", "web", "--format", "json").json["result"]["serial"] == "20260131_1200"


def test_an_appliance_is_tried_out_without_being_published(run: Any, ready: Any, folder: Path) -> None:
    ready.on("GET", "/api/builds/4", {**BUILD, "channel": None})
    done = run("appliance", "test", "web", "--on", "local")
    assert done.code == 0
    body = asked_for(ready)
    del body["files"]
    assert body == {"types": ["container"], "compression": "fast", "gate": "local"}
    assert not (folder / "appliance.lock").exists()
    assert "Next" in done.out
    assert "iceshelves image build web" in done.out


def test_builds_are_listed_and_shown(run: Any, ready: Any, listed: Any) -> None:
    ready.on("GET", "/api/builds", listed("builds", BUILD))
    row = run("image", "builds", "--appliance", "web").out.splitlines()[1].split()
    assert row[:7] == ["4", "web", "1.22.1", "amd64", "succeeded", "stable", "42.0s"]
    assert "appliance=web" in ready.to("GET", "/api/builds")[0].query
    assert "f" * 64 in run("image", "show-build", "4").out
    assert run("image", "show-build", "4", "--lock").out.strip() == LOCK
    assert run("image", "show-build", "web").code == 2


def test_the_log_is_printed_as_far_as_it_is_or_to_its_end(run: Any, ready: Any) -> None:
    assert run("image", "logs", "4").out.split(" ", 1)[1] == "build: [pack] done\n"
    assert [line["id"] for line in run("image", "logs", "4", "--format", "json").json] == [1]
    assert run("image", "logs", "4", "--follow").out.endswith("later\n")
    assert run("image", "logs", "4", "-f", "--format", "csv").code == 2
