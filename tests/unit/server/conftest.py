"""A whole application in this process: SQLite, the fake hypervisor, an engine that does nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from iceshelves.access import tokens
from iceshelves.access.policy import Role
from iceshelves.core.settings import Settings
from iceshelves.deploy import catalogue
from iceshelves.deploy.control import ControlPlane
from iceshelves.server.app import create_app
from iceshelves.store.models import Tenant, User
from testbed.engine import IdleEngine


@dataclass
class Server:
    """An application, its control plane, and a client for each identity."""

    control: ControlPlane
    client: TestClient
    tokens: dict[str, str]

    def call(self, method: str, path: str, who: str = "admin", **sent: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.tokens[who]}", **sent.pop("headers", {})}
        return self.client.request(method, f"/iceshelves{path}", headers=headers, **sent)

    def get(self, path: str, who: str = "admin", **sent: Any) -> Any:
        return self.call("GET", path, who, **sent)

    def post(self, path: str, who: str = "admin", **sent: Any) -> Any:
        return self.call("POST", path, who, **sent)

    def deploy(self, name: str = "web-1", who: str = "admin", **more: Any) -> dict[str, Any]:
        body = {"egg": "hello-web", "cluster": "lab", "instance_name": name, **more}
        answer = self.post("/api/deploy", who, json=body)
        assert answer.status_code == 202, answer.text
        return answer.json()


def _prepare(data: Path) -> dict[str, str]:
    """A database with two tenants; the first has one user of each role."""
    control = ControlPlane(Settings(data=data), IdleEngine())
    assert control.first_token is not None
    known = {"admin": control.first_token.reveal()}
    with control.database.write() as session:
        mine = session.execute(sa.select(Tenant)).scalar_one()
        other = Tenant(name="other")
        session.add(other)
        session.flush()
        for name, tenant, role in (
            ("operator", mine, Role.OPERATOR),
            ("viewer", mine, Role.VIEWER),
            ("stranger", other, Role.ADMIN),
        ):
            user = User(tenant_id=tenant.id, name=name, role=role.value)
            session.add(user)
            session.flush()
            known[name] = tokens.issue(session, user, "test").reveal()
    catalogue.sync_builtin(control.database)
    control.database.close()
    return known


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    data = tmp_path_factory.mktemp("prepared") / "data"
    return data, _prepare(data)


@pytest.fixture
def make_server(prepared: tuple[Path, dict[str, str]], tmp_path: Path) -> Iterator[Callable[[], Server]]:
    """Starts a server on a copy of the prepared database."""
    stack: list[TestClient] = []

    def make() -> Server:
        data = tmp_path / f"data{len(stack)}"
        shutil.copytree(prepared[0], data)
        control = ControlPlane(Settings(data=data), IdleEngine())
        client = TestClient(create_app(control), raise_server_exceptions=False)
        client.__enter__()
        stack.append(client)
        return Server(control, client, prepared[1])

    yield make
    for client in stack:
        client.__exit__(None, None, None)


@pytest.fixture
def server(make_server: Callable[[], Server]) -> Server:
    """A server with the fake cluster ``lab``."""
    made = make_server()
    answer = made.post(
        "/api/clusters", json={"name": "lab", "provider": "fake", "endpoint_url": "fake://unit-lab"}
    )
    assert answer.status_code == 201, answer.text
    return made


@pytest.fixture(scope="module")
def shared_server(
    prepared: tuple[Path, dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """One server for many read-only questions, with a cluster, a deployment and what belongs to them."""
    data = tmp_path_factory.mktemp("shared") / "data"
    shutil.copytree(prepared[0], data)
    control = ControlPlane(Settings(data=data), IdleEngine())
    with TestClient(create_app(control), raise_server_exceptions=False) as client:
        made = Server(control, client, prepared[1])
        made.post("/api/clusters", json={"name": "lab", "provider": "fake", "endpoint_url": "fake://shared"})
        made.deploy()
        made.post("/api/builds", json={"appliance": "nginx"})
        yield made
