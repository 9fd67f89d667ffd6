from __future__ import annotations

from typing import Any

import pytest

SCAN = {
    "cluster": "lab",
    "counts": {"ours": 1, "adopted": 0, "foreign": 2, "conflict": 1},
    "instances": [
        {
            "name": name,
            "kind": "container",
            "power": "running",
            "member": None,
            "ownership": own,
            "reason": why,
        }
        for name, own, why in (
            ("a", "foreign", ""),
            ("b", "foreign", ""),
            ("copy", "conflict", "It carries the mark of web."),
            ("web", "ours", ""),
        )
    ],
}


def outcome(name: str, message: str = "") -> dict[str, Any]:
    error = {"code": "not_ours", "message": message, "hint": "It was left as it is."} if message else None
    return {"name": name, "ok": not message, "error": error}


def test_instances_of_all_clusters(run: Any, server: Any, listed: Any) -> None:
    entry = {**SCAN["instances"][0], "cluster": {"id": 1, "name": "lab"}, "seen_on": None}  # type: ignore[index]
    server.on("GET", "/api/instances", listed("instances", entry))
    heading, line = run("instances", "--cluster", "lab", "--ownership", "foreign").out.splitlines()
    assert heading.split() == ["NAME", "OWNERSHIP", "KIND", "POWER", "MEMBER", "SEEN", "REASON"]
    assert line.split() == ["lab:a", "foreign", "container", "running"]
    assert server.sent[0].query == "page=1&per_page=100&cluster=lab&ownership=foreign"
    server.on("GET", "/api/instances", listed("instances"))
    assert run("instances").err == "No instances on any cluster.\n"


def test_a_scan_says_whose_each_is_and_what_to_do(run: Any, server: Any) -> None:
    server.on("POST", "/api/clusters/lab/scan", SCAN)
    out = run("cluster", "scan", "lab").out
    assert "It carries the mark of web." in out
    assert "1 ours, 2 not ours, 1 in conflict." in out
    assert "iceshelves cluster adopt lab INSTANCE..." in out
    empty = {**SCAN, "instances": [], "counts": dict.fromkeys(("ours", "adopted", "foreign", "conflict"), 0)}
    server.on("POST", "/api/clusters/lab/scan", empty)
    assert run("cluster", "scan", "lab").out == "There are no instances on lab.\n"


def test_each_name_has_its_result(run: Any, server: Any) -> None:
    server.on(
        "POST",
        "/api/clusters/lab/adopt",
        {"done": 1, "results": [outcome("a"), outcome("web", "Not yours.")]},
    )
    done = run("cluster", "adopt", "lab", "a", "web")
    assert done.code == 1
    assert done.out.splitlines() == ["✓ a: adopted", "✗ web: Not yours.", "    It was left as it is."]
    assert server.sent[0].json == {"names": ["a", "web"]}
    server.on("POST", "/api/clusters/lab/release", {"done": 1, "results": [outcome("a")]})
    assert run("cluster", "release", "lab", "a").out == "✓ a: released\n"
    unmarked = {**outcome("a"), "note": "not marked, nothing to do"}
    server.on("POST", "/api/clusters/lab/release", {"done": 1, "results": [unmarked]})
    assert run("cluster", "release", "lab", "a").out == "✓ a: not marked, nothing to do\n"


def test_all_are_those_that_nobody_has_marked_and_it_asks_first(
    run: Any, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.on("POST", "/api/clusters/lab/scan", SCAN)
    server.on("POST", "/api/clusters/lab/adopt", {"done": 2, "results": [outcome("a"), outcome("b")]})
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    asked = run("cluster", "adopt", "lab", "--all")
    assert asked.code == 1
    assert "Mark 2 instances of lab as adopted?" in asked.err
    assert not server.to("POST", "/api/clusters/lab/adopt")
    assert run("cluster", "adopt", "lab", "--all", "--yes").code == 0
    (sent,) = server.to("POST", "/api/clusters/lab/adopt")
    assert sent.json == {"names": ["a", "b"]}


def test_names_or_all_but_not_both(run: Any, server: Any) -> None:
    for given in ((), ("a", "--all")):
        done = run("cluster", "adopt", "lab", *given)
        assert done.code == 2
        assert "Name the instances, or give --all." in done.err
    assert server.sent == []
