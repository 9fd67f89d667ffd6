"""Unix sockets: where the daemons usually put theirs."""

from __future__ import annotations

from pathlib import Path

import pytest

from iceshelves.connections.unix import usual_socket


def test_the_usual_socket_is_the_one_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    there: set[str] = set()
    monkeypatch.setattr(Path, "is_socket", lambda path: str(path) in there)
    assert usual_socket("incus") == "/var/lib/incus/unix.socket"
    assert usual_socket("lxd").startswith("/var/snap/")
    there.add("/var/lib/lxd/unix.socket")
    assert usual_socket("lxd") == "/var/lib/lxd/unix.socket"
