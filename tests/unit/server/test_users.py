"""Users and their tokens."""

from __future__ import annotations

from typing import Any


def test_who_am_i(server: Any) -> None:
    answer = server.get("/api/whoami", "viewer").json()
    assert (answer["name"], answer["role"], answer["tenant"]) == ("viewer", "viewer", "default")
    assert "eggs:read" in answer["permissions"]
    assert "eggs:write" not in answer["permissions"]


def test_a_user_comes_and_goes(server: Any) -> None:
    made = server.post("/api/users", json={"name": "robot", "role": "operator"}).json()
    server.tokens = {**server.tokens, "robot": made["token"]}
    assert server.get("/api/whoami", "robot").json()["role"] == "operator"
    taken = server.post("/api/users", json={"name": "robot", "role": "viewer"})
    assert (taken.status_code, taken.json()["error_code"]) == (409, "user_exists")

    renewed = server.post(f"/api/users/{made['user_id']}/token").json()
    assert server.get("/api/whoami", "robot").status_code == 401  # at once, not when a cache forgets
    server.tokens["robot"] = renewed["token"]
    assert server.get("/api/whoami", "robot").status_code == 200

    assert server.call("DELETE", f"/api/users/{made['user_id']}").status_code == 200
    assert server.get("/api/whoami", "robot").status_code == 401
    assert server.post(f"/api/users/{made['user_id']}/token").status_code == 404
    listed = {user["name"]: user["is_active"] for user in server.get("/api/users").json()["users"]}
    assert listed["robot"] is False

    back = server.post("/api/users", json={"name": "robot", "role": "viewer"}).json()
    server.tokens["robot"] = back["token"]
    assert server.get("/api/whoami", "robot").json()["role"] == "viewer"
    assert "isv_" not in server.get("/api/users").text + server.get("/api/audit").text


def test_the_last_administrator_stays(server: Any) -> None:
    answer = server.call("DELETE", "/api/users/1")
    assert (answer.status_code, answer.json()["error_code"]) == (409, "last_admin")
    server.post("/api/users", json={"name": "second", "role": "admin"})
    assert server.call("DELETE", "/api/users/1").status_code == 200
