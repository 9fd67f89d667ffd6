"""The environment file of the original's agent, printed so that it can be sent to where it belongs."""

from __future__ import annotations

from typing import Any

MADE = {"success": True, "cluster_id": 7, "agent_key": "k" * 43, "poll_interval": 300}


def test_nothing_but_the_file_is_printed(run: Any, server: Any) -> None:
    server.on("POST", "/api/clusters/site/enroll-original", MADE)
    done = run("cluster", "enroll", "site", "--original")
    assert (done.code, done.err) == (0, "")
    lines = dict(line.split("=", 1) for line in done.out.splitlines())
    assert lines.pop("ICESHELVES_SERVER").endswith("/iceshelves")
    assert lines == {
        "ICESHELVES_CLUSTER_ID": "7",
        "ICESHELVES_AGENT_KEY": "k" * 43,
        "ICESHELVES_POLL_INTERVAL": "300",
    }
    assert run("cluster", "enroll", "site", "--original", "--json", "agent_key").json == {
        "agent_key": "k" * 43
    }
