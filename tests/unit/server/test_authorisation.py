"""Every route for every identity, generated from the routes themselves."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from starlette.routing import BaseRoute
from starlette.testclient import WebSocketDenialResponse

from iceshelves.access.policy import GRANTS, Permission, Role
from iceshelves.server.api.agents import AgentWebSocket
from iceshelves.server.api.execution import GuardedWebSocket
from iceshelves.server.api.original_agent import OriginalRoute
from iceshelves.server.app import all_routes
from iceshelves.server.routes import Access, GuardedRoute

#: what anybody may see; a route is added here on purpose or not at all
PUBLIC = {
    "/iceshelves", "/iceshelves/", "/iceshelves/api", "/iceshelves/api/openapi.json", "/iceshelves/health",
    "/iceshelves/healthz", "/iceshelves/api/health", "/iceshelves/api/healthz",
    "/iceshelves/registry/{tenant}/{file:path}",  # as stock clients read images
    "/iceshelves/api/agent/v1/enroll",  # the one-time token in its body is what lets an agent in
}  # fmt: skip
PLACES = {
    "egg": "hello-web", "cluster": "lab", "deployment": "1", "operation": "0-0", "user": "1", "member": "m1",
    "server": "images", "appliance": "nginx", "build": "1", "sha256": "0" * 64,
}  # fmt: skip
ROLES = {"viewer": Role.VIEWER, "operator": Role.OPERATOR, "admin": Role.ADMIN}


def guarded() -> list[GuardedRoute]:
    return [route for route in all_routes() if isinstance(route, GuardedRoute)]


def private() -> list[Any]:
    return [
        pytest.param(route, method, id=f"{method} {route.path}")
        for route in guarded()
        if route.access != "public"
        for method in sorted(route.methods or ())
    ]


def is_agents(entry: Any) -> bool:
    return bool(entry.values[0].access == "agent")


def concrete(route: GuardedRoute, **places: str) -> str:
    return route.path.removeprefix("/iceshelves").format(**{**PLACES, **places})


def test_every_route_of_the_application_is_guarded(shared_server: Any) -> None:
    routes: list[BaseRoute] = shared_server.client.app.routes
    assert len(routes) > 40
    for route in routes:
        assert isinstance(route, GuardedRoute | GuardedWebSocket | AgentWebSocket), route
        assert isinstance(route.access, Permission) or route.access in ("any", "agent", "public")


def test_only_these_are_public() -> None:
    assert {route.path for route in guarded() if route.access == "public"} == PUBLIC


def test_a_route_without_access_cannot_be_made() -> None:
    with pytest.raises(TypeError):
        GuardedRoute("/x", lambda: None, answers=())  # type: ignore[call-arg]
    assert Permission in get_args(Access)


@pytest.mark.parametrize(("route", "method"), private())
def test_nobody_is_let_in(shared_server: Any, route: GuardedRoute, method: str) -> None:
    path = f"/iceshelves{concrete(route)}"
    unknown = "invalid_agent_key" if route.access == "agent" else "invalid_token"
    for headers, code in (
        ({}, "token_missing"),
        ({"Authorization": "Basic YWRtaW46YWRtaW4="}, "token_missing"),
        ({"Authorization": "Bearer isv_" + "0" * 43}, unknown),
    ):
        answer = shared_server.client.request(method, path, headers=headers, content=b"{")
        assert answer.status_code == 401
        if isinstance(route, OriginalRoute):
            assert answer.json() == {"error": "Invalid agent key"}
            continue
        assert answer.json()["error_code"] == code
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("who", sorted(ROLES))
@pytest.mark.parametrize(("route", "method"), [entry for entry in private() if not is_agents(entry)])
def test_role(shared_server: Any, route: GuardedRoute, method: str, who: str) -> None:
    """Whom the role does not allow gets 403 before anything is read; the others get past it."""
    if "events" in route.path:
        path = concrete(route, deployment="999", operation="none")  # a stream that would begin has no end
    else:
        path = concrete(route, deployment="999", cluster="999", egg="999", user="999")
    answer = shared_server.call(method, path, who, content=b"{")
    allowed = route.access == "any" or route.access in GRANTS[ROLES[who]]
    if allowed:
        assert answer.status_code not in (401, 403, 500), answer.text
    else:
        assert answer.status_code == 403
        assert answer.json()["error_code"] == "permission_missing"


def test_a_refusal_is_audited(server: Any) -> None:
    server.call("DELETE", "/api/clusters/lab", "viewer")
    entry = server.get("/api/audit").json()["audit"][0]
    assert (entry["actor"], entry["action"], entry["outcome"]) == ("viewer", "clusters:write", "denied")
    assert server.get("/api/clusters/lab").status_code == 200


def test_exec_needs_its_permission(shared_server: Any) -> None:
    address = "/iceshelves/api/deployments/1/exec"
    for headers, status in (
        ({}, 401),
        ({"Authorization": f"Bearer {shared_server.tokens['viewer']}"}, 403),
        ({"Sec-WebSocket-Protocol": f"bearer.{shared_server.tokens['viewer']}"}, 403),
        ({"Authorization": f"Bearer {shared_server.tokens['stranger']}"}, 404),
    ):
        with (
            pytest.raises(WebSocketDenialResponse) as refused,
            shared_server.client.websocket_connect(address, headers=headers),
        ):
            pass
        assert refused.value.status_code == status
        assert refused.value.headers["content-type"] == "application/problem+json"


def body_for(route: GuardedRoute, method: str) -> dict[str, Any]:
    """A body that the route takes: what is wrong with it would be told before whose object it is."""
    if "accept-" in route.path:
        return {"fingerprint": "0" * 64}
    if method == "PATCH":
        return {"description": "x"} if "clusters" in route.path else {"is_active": False}
    return {}


def with_places() -> list[Any]:
    """Built-in appliances are the same for all, and an upload is whoever's who names its content."""
    shared = ("{appliance}", "{sha256}")
    return [
        param
        for param in private()
        if "{" in param.values[0].path and not param.values[0].path.endswith(shared) and not is_agents(param)
    ]


@pytest.mark.parametrize(("route", "method"), with_places())
def test_another_tenants_object_answers_like_none(
    shared_server: Any, route: GuardedRoute, method: str
) -> None:
    """The answer to a stranger is, but for the name that was asked for, that for what never existed."""
    operation = shared_server.get("/api/operations").json()["operations"][0]["id"]
    numbers = {"egg": "1", "cluster": "1", "deployment": "1", "operation": operation, "user": "1"}
    absent = {"egg": "99", "cluster": "99", "deployment": "99", "operation": "0" * 36, "user": "99"}
    numbers, absent = {**numbers, "build": "1"}, {**absent, "build": "99"}
    content = {"json": body_for(route, method)} if route.body_field is not None else {}
    theirs = shared_server.call(method, concrete(route, **numbers), "stranger", **content)
    nothing = shared_server.call(method, concrete(route, **absent), "stranger", **content)
    assert theirs.status_code == nothing.status_code == 404, theirs.text
    told = [_without_names(answer.json(), names) for answer, names in ((theirs, numbers), (nothing, absent))]
    assert told[0] == told[1]


def _without_names(problem: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    problem.pop("request_id")
    for key in ("detail", "error"):
        for name in names.values():
            problem[key] = problem[key].replace(repr(name), "NAME").replace(f" {name}.", " NAME.")
    return problem


def test_lists_show_nothing_of_another_tenant(shared_server: Any) -> None:
    for path, name in (
        ("/api/clusters", "clusters"),
        ("/api/deployments?deleted=true", "deployments"),
        ("/api/operations", "operations"),
        ("/api/audit", "audit"),
    ):
        answer = shared_server.get(path, "stranger").json()
        assert answer[name] == [], path
        assert answer["total"] == 0
    assert [user["name"] for user in shared_server.get("/api/users", "stranger").json()["users"]] == [
        "stranger"
    ]
    builtin = {egg["created_by"] for egg in shared_server.get("/api/eggs", "stranger").json()["eggs"]}
    assert builtin == {"system"}


def test_a_stranger_cannot_deploy_to_or_from_what_is_not_its_own(shared_server: Any) -> None:
    mine = shared_server.get("/api/eggs/hello-web", "stranger").json()["id"]
    for body, code in (
        ({"egg_id": mine, "cluster_id": 1}, "cluster_not_found"),
        ({"egg_id": mine, "cluster": "lab"}, "cluster_not_found"),
        ({"egg_id": 1, "cluster_id": 1}, "egg_not_found"),
    ):
        answer = shared_server.post("/api/deploy", "stranger", json={**body, "instance_name": "x"})
        assert answer.status_code == 404
        assert answer.json()["error_code"] == code
