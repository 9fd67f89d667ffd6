"""Adding and changing clusters from the command line; on a real terminal that is told in tests/e2e."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

FOUND = "a" * 64
NEEDED = {
    "error": "hv:8443 shows it",
    "error_code": "fingerprint_needed",
    "hint": f"repeat with --fingerprint {FOUND}",
    "details": {"found": FOUND, "where": "hv:8443", "kind": "certificate", "hop": 0},
}
GOOD = {"status": "active", "details": {"checks": [{"name": "tcp", "ok": True, "state": "passed"}]}}


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Somebody is there, and gives these answers; a secret's question is noted with an exclamation mark."""
    answers: list[str] = []
    monkeypatch.setattr("iceshelves.cli.asking.somebody_is_there", lambda: True)
    monkeypatch.setattr("iceshelves.cli.commands.cluster_adding.somebody_is_there", lambda: True)
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: answers.pop(0))
    monkeypatch.setattr("click.termui.hidden_prompt_func", lambda _: answers.pop(0))
    return answers


@pytest.fixture
def adding(server: Any) -> Any:
    server.on("POST", "/api/clusters", {"cluster_id": 1}, status=201)
    server.on("POST", "/api/clusters/far/test", GOOD)
    return server


def body(server: Any) -> dict[str, Any]:
    found: dict[str, Any] = server.to("POST", "/api/clusters")[-1].json
    return {key: value for key, value in found.items() if value not in ("", {}) and key != "project"}


def test_direct_by_flags(run: Any, adding: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("tok-en\n")
    flags = ["--direct", "https://hv:8443", "--fingerprint", FOUND, "--token-file", str(tmp_path / "token")]
    assert run("cluster", "add", "far", *flags).code == 0
    assert body(adding) == {
        "name": "far",
        "provider": "incus",
        "connection_method": "direct-api",
        "endpoint_url": "https://hv:8443",
        "server_certificate": FOUND,
        "trust_token": "tok-en",
    }
    monkeypatch.setenv("ICESHELVES_TRUST_PASSWORD", "pass-word")
    pem = "-----BEGIN CERTIFICATE-----\n"
    (tmp_path / "pem").write_text(pem)
    files = ["--certificate", "--key", "--server-certificate"]
    given = [part for flag in files for part in (flag, str(tmp_path / "pem"))]
    run("cluster", "add", "far", "--provider", "lxd", "--direct", "https://hv", "--password", *given)
    found = body(adding)
    assert (found["trust_password"], found["client_key"], found["server_certificate"]) == (
        "pass-word", pem, pem,
    )  # fmt: skip
    (tmp_path / "none").write_text("no certificate")
    done = run("cluster", "add", "far", "--direct", "https://hv", files[2], str(tmp_path / "none"))
    assert (done.code, "none holds no certificate in PEM" in done.err) == (1, True)


@pytest.mark.parametrize(
    ("flags", "option"),
    [
        (["--agent", "--fingerprint", FOUND], "--fingerprint has no effect with --agent"),
        (["--socket", "/run/d.sock", "--key", "k"], "--key has no effect with --socket"),
        (["--socket", "/run/d.sock", "--jump", "gate"], "--jump has no effect with --socket"),
        (["--direct", "https://hv", "--host-key", "SHA256:x"], "--host-key has no effect with --direct"),
        (["--ssh", "ssh://hv", "--token-file", "x"], "--token-file has no effect with --ssh"),
        (["--ssh", "ssh://hv", "--poll-interval", "9"], "--poll-interval has no effect with --ssh"),
        (["--fingerprint", FOUND], "--fingerprint has no effect with --socket"),
    ],
)
def test_options_of_another_way_are_refused(run: Any, adding: Any, flags: list[str], option: str) -> None:
    done = run("cluster", "add", "far", *flags)
    assert done.code == 1
    assert option in done.err
    assert "field_without_effect" in done.err
    assert adding.sent == []


def test_after_a_failed_test_it_is_changed_rather_than_deleted(run: Any, adding: Any) -> None:
    adding.on("POST", "/api/clusters/far/test", {"status": "error", "details": {"message": "away"}})
    done = run("cluster", "add", "far", "--socket", "/run/d.sock")
    assert done.err.index("cluster set far") < done.err.index("cluster delete far")
    done = run("cluster", "add", "far", "--socket", "/run/d.sock", "--no-test")
    assert (done.code, "Next:  iceshelves cluster test far" in done.out) == (0, True)


def test_ssh_by_flags(run: Any, adding: Any) -> None:
    done = run(
        *("cluster", "add", "far", "--ssh", "ssh://ops@hv:2222/run/d.sock", "--ssh-agent"),
        *("--jump", "me@gate:2200", "--jump", "[2001:db8::1]"),
        *("--host-key", "SHA256:one", "--host-key", "SHA256:two", "--host-key", "SHA256:three"),
    )
    assert done.code == 0
    assert body(adding) == {
        "name": "far",
        "provider": "incus",
        "connection_method": "ssh",
        "endpoint_url": "ssh://ops@hv:2222/run/d.sock",
        "ssh_auth": "ssh-agent",
        "ssh_host_key": "SHA256:three",
        "ssh_jumps": [
            {"host": "gate", "user": "me", "port": 2200, "host_key": "SHA256:one"},
            {"host": "2001:db8::1", "user": "root", "port": 22, "host_key": "SHA256:two"},
        ],
    }


def test_an_agents_cluster_is_enrolled_next(run: Any, adding: Any) -> None:
    done = run("cluster", "add", "far", "--agent", "--poll-interval", "120")
    assert "iceshelves cluster enroll far" in done.out
    assert body(adding)["agent_poll_interval"] == 120
    assert not adding.to("POST", "/api/clusters/far/test")


@pytest.mark.parametrize(
    "flags",
    [
        ["--direct", "https://hv", "--ssh", "ssh://hv"],
        ["--direct", "https://hv", "--token", "--password"],
        ["--direct", "https://hv", "--fingerprint", FOUND, "--server-certificate", "file"],
        ["--direct", "https://hv", "--certificate", "file"],
        ["--direct", "https://hv", "--key", "file"],
        ["--ssh", "ssh://hv", "--jump", "a:b"],
        ["--ssh", "ssh://hv", "--host-key", "x", "--host-key", "y"],
    ],
)
def test_flags_that_contradict_each_other(run: Any, adding: Any, flags: list[str]) -> None:
    assert run("cluster", "add", "far", *flags).code == 2
    assert adding.sent == []


def test_where_nobody_can_vouch_the_fingerprint_is_told(run: Any, server: Any) -> None:
    server.on("POST", "/api/clusters", NEEDED, status=400)
    done = run("cluster", "add", "far", "--direct", "https://hv")
    assert done.code == 1
    assert f"--fingerprint {FOUND}" in done.err


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 1), ("", 1)])
def test_a_fingerprint_is_vouched_for(
    run: Any, server: Any, reply: Any, terminal: list[str], answer: str, code: int
) -> None:
    server.on("POST", "/api/clusters", reply(400, NEEDED), reply(201, {"cluster_id": 1}))
    server.on("POST", "/api/clusters/far/test", GOOD)
    terminal.append(answer)
    done = run("cluster", "add", "far", "--direct", "https://hv")
    assert done.code == code
    assert FOUND in done.err
    if code == 0:
        assert body(server)["server_certificate"] == FOUND
    else:
        assert len(server.sent) == 1


def test_what_is_left_to_do_there_is_told(run: Any, server: Any, terminal: list[str]) -> None:
    added = {"cluster_id": 1, "next_step": "Do this", "client_certificate": "-----BEGIN CERTIFICATE-----\n"}
    server.on("POST", "/api/clusters", added, status=201)
    server.on("POST", "/api/clusters/far/test", GOOD)
    terminal.append("")
    done = run("cluster", "add", "far", "--direct", "https://hv", "--fingerprint", FOUND)
    assert done.code == 0
    assert "Do this" in done.out
    assert "-----BEGIN CERTIFICATE-----" in done.out
    assert done.out.rstrip().endswith("✓ tcp")


def test_the_conversation(run: Any, adding: Any, terminal: list[str]) -> None:
    terminal += ["2", "2", "2", "https://hv", "pass-word"]
    done = run("cluster", "add", "far")
    assert done.code == 0, done.err
    assert body(adding) == {
        "name": "far",
        "provider": "lxd",
        "connection_method": "direct-api",
        "endpoint_url": "https://hv",
        "trust_password": "pass-word",
    }
    assert "pass-word" not in done.out + done.err
    terminal += ["1", "2", "1", "tok-en", ""]
    run("cluster", "add", "far")
    assert (body(adding)["trust_token"], "endpoint_url" in body(adding)) == ("tok-en", False)
    terminal += ["1", "3", "root@hv"]
    run("cluster", "add", "far")
    assert (body(adding)["connection_method"], body(adding)["endpoint_url"]) == ("ssh", "ssh://root@hv")
    terminal += ["", "", ""]
    run("cluster", "add", "far")
    assert body(adding) == {"name": "far", "provider": "incus", "connection_method": "unix-socket"}
    assert terminal == []


def test_states_of_checks_have_marks_of_their_own(run: Any, server: Any) -> None:
    checks = [
        {"name": "tcp", "ok": True, "state": "passed", "message": "open"},
        {"name": "expiry", "ok": True, "state": "warned", "message": "soon", "remedy": "Rotate."},
        {"name": "rights", "ok": False, "state": "failed", "message": "no", "remedy": "Ask\nsomebody."},
        {"name": "version", "ok": False, "state": "not_tried", "message": "", "remedy": None},
    ]
    server.on("POST", "/api/clusters/far/test", {"status": "error", "details": {"checks": checks}})
    assert run("cluster", "test", "far").out.splitlines() == [
        "✓ tcp: open", "! expiry: soon", "    Rotate.", "✗ rights: no", "    Ask", "    somebody.",
        "· version: not tried",
    ]  # fmt: skip


def test_a_cluster_is_changed(run: Any, server: Any) -> None:
    server.on("PATCH", "/api/clusters/far", {"cluster_id": 1})
    assert run("cluster", "set", "far", "--project", "web", "--max-operations", "none").code == 0
    assert server.sent[-1].json == {"project": "web", "max_operations": None}
    assert "Next:  iceshelves cluster test far" in run("cluster", "set", "far", "--endpoint", "/run/x").out
    assert "Next:" not in run("cluster", "set", "far", "--description", "x").out
    assert run("cluster", "set", "far").code == 2
    assert run("cluster", "set", "far", "--max-operations", "many").code == 2


def shown(fingerprint: str) -> dict[str, Any]:
    return {
        "host": "hv",
        "port": 8443,
        "kind": "certificate",
        "fingerprint": fingerprint,
        "expected": "b" * 64,
    }


def test_a_certificate_is_accepted_after_a_look(run: Any, server: Any, terminal: list[str]) -> None:
    server.on("POST", "/api/clusters/far/look", {"shown": [shown(FOUND)]})
    server.on("POST", "/api/clusters/far/accept-certificate", {"cluster_id": 1})
    terminal += ["y"]
    done = run("cluster", "accept-certificate", "far")
    assert done.code == 0
    assert "b" * 64 in done.err
    assert server.sent[-1].json == {"fingerprint": FOUND}
    terminal += ["n"]
    assert run("cluster", "accept-certificate", "far").code == 1
    server.on("POST", "/api/clusters/far/look", {"shown": [shown("b" * 64)]})
    assert "nothing_to_accept" in run("cluster", "accept-certificate", "far").err


def test_a_host_that_is_not_on_the_way_is_refused_before_anything_is_shown(
    run: Any, server: Any, terminal: list[str]
) -> None:
    key = {**shown("SHA256:x"), "kind": "host_key", "port": 22}
    server.on("POST", "/api/clusters/far/look", {"shown": [{**key, "host": "gate"}, key]})
    server.on("POST", "/api/clusters/far/accept-host-key", {"cluster_id": 1})
    done = run("cluster", "accept-host-key", "far", "--host", "gaet")
    assert done.code == 1
    assert "host_not_on_the_way" in done.err
    assert "SHA256" not in done.err
    assert not server.to("POST", "/api/clusters/far/accept-host-key")
    terminal += ["y"]
    assert run("cluster", "accept-host-key", "far", "--host", "gate:22").code == 0


def test_without_a_terminal_the_fingerprint_is_given(run: Any, server: Any) -> None:
    server.on("POST", "/api/clusters/far/accept-host-key", {"cluster_id": 1})
    assert "confirmation_needed" in run("cluster", "accept-host-key", "far").err
    assert run("cluster", "accept-host-key", "far", "--host", "gate", "--fingerprint", "SHA256:x").code == 0
    assert server.sent[-1].json == {"fingerprint": "SHA256:x", "host": "gate"}


def test_a_rotation_waits_for_the_other_side(run: Any, server: Any, reply: Any, terminal: list[str]) -> None:
    pending = {"status": "pending", "public": "ssh-ed25519 AAAA", "message": "Made.", "next_step": "Add it."}
    done = {"status": "done", "public": "x", "message": "In use.", "next_step": "Remove the former."}
    server.on("POST", "/api/clusters/far/rotate", reply(200, pending), reply(200, done))
    terminal += [""]
    said = run("cluster", "rotate", "far")
    assert said.code == 0
    for words in ("ssh-ed25519 AAAA", "Add it.", "In use.", "Remove the former."):
        assert words in said.out


def test_what_a_cluster_has_to_trust_is_printed_alone(run: Any, server: Any) -> None:
    server.on("GET", "/api/clusters/far", {"name": "far", "client_certificate": "PEM\n"})
    assert run("cluster", "certificate", "far").out == "PEM\n"
    server.on("GET", "/api/clusters/far", {"name": "far", "client_certificate": None})
    assert run("cluster", "certificate", "far").code == 1


def test_show_says_how_it_is_reached(run: Any, server: Any) -> None:
    server.on(
        "GET",
        "/api/clusters/far",
        {
            "name": "far",
            "connection_method": "direct-api",
            "endpoint_url": "https://hv:8443",
            "server_fingerprint": FOUND,
            "server_certificate_expires": "2030-01-01T00:00:00.000Z",
            "certificate_expires": "2036-01-01T00:00:00.000Z",
            "rotating": True,
            "status": "error",
            "health": {"message": "away", "since": "2026-01-31T12:00:00.000Z"},
        },
    )
    said = run("cluster", "show", "far").out
    for words in (f"{FOUND} (until 2030-01-01)", "until 2036-01-01, being rotated", "error since 2026-01-31"):
        assert words in said
