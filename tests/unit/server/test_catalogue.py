"""What keeps the built-in library current."""

from __future__ import annotations

from typing import Any

import pytest

from iceshelves import eggs
from iceshelves.deploy import catalogue


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> list[eggs.Egg]:
    held = [eggs.new_egg("lib", "cloud-config", version="1.0.0")]
    monkeypatch.setattr(catalogue, "builtin_eggs", lambda: held)
    return held


def show(server: Any, who: str = "admin") -> dict[str, Any]:
    found: dict[str, Any] = server.get("/api/eggs/lib", who).json()
    return found


def test_every_tenant_has_it_once(server: Any, library: list[eggs.Egg]) -> None:
    for _ in range(2):
        catalogue.sync_builtin(server.control.database)
    for who in ("admin", "stranger"):
        assert show(server, who)["builtin"] is True
        assert len(show(server, who)["versions"]) == 1


def test_a_newer_release_replaces_its_own_and_adds_versions(server: Any, library: list[eggs.Egg]) -> None:
    catalogue.sync_builtin(server.control.database)
    before = show(server)
    server.call("PATCH", "/api/eggs/lib", json={"is_active": False})
    library[:] = [
        eggs.new_egg("lib", "cloud-config", version="1.0.0", description="mended"),
        eggs.new_egg("lib", "cloud-config", version="1.1.0"),
    ]
    catalogue.sync_builtin(server.control.database)
    mended = server.get("/api/eggs/lib@1.0.0").json()
    assert (mended["id"], mended["description"], mended["is_active"]) == (before["id"], "mended", False)
    assert mended["digest"] != before["digest"]
    assert show(server)["version"] == "1.1.0"


def test_a_tenants_own_egg_is_left_alone(server: Any, library: list[eggs.Egg]) -> None:
    data = eggs.pack(eggs.new_egg("lib", "cloud-config", version="1.0.0", description="my own"))
    headers = {"Content-Type": "application/octet-stream"}
    assert server.post("/api/eggs/import", content=data, headers=headers).status_code == 201
    catalogue.sync_builtin(server.control.database)
    assert (show(server)["description"], show(server)["builtin"]) == ("my own", False)
    assert show(server, "stranger")["builtin"] is True
