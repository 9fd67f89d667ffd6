"""The engine itself: what it says of its workflows; none of its own ends leaves an operation open."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

from iceshelves.access.policy import Actor, Role
from iceshelves.clusters.requests import NewCluster
from iceshelves.core.settings import Settings
from iceshelves.deploy import catalogue
from iceshelves.deploy.control import ControlPlane
from iceshelves.deploy.requests import DeployRequest
from iceshelves.store.models import Operation
from iceshelves.store.queries import eggs
from testbed.hosts import wait_until
from testbed.server import running_server

ADMIN = Actor(1, 1, "admin", Role.ADMIN)


def test_a_workflow_that_was_recovered_too_often_is_no_obstacle(tmp_path: Path) -> None:
    """It keeps neither the server from starting nor its operation from ending."""

    def started() -> ControlPlane:
        return ControlPlane(Settings(data=tmp_path))

    def deploy(control: ControlPlane) -> str:
        catalogue.sync_builtin(control.database)
        options = {"guests": {"*": {"result": "never"}}}
        new = NewCluster(name="lab", provider="fake", endpoint_url="fake://engine", options=options)
        with control.database.read() as session:
            egg_id = eggs.id_of(session, 1, "hello-web")
        cluster_id = control.clusters.add(ADMIN, new)
        request = DeployRequest(egg_id=egg_id, cluster_id=cluster_id, instance_name="web")
        return control.deployments.create(ADMIN, request).operation_id

    def read(control: ControlPlane, operation_id: str) -> Operation:
        with control.database.read() as session:
            return session.get_one(Operation, operation_id)

    async def first() -> str:
        control = started()
        await control.start()
        try:
            operation_id = deploy(control)
            async with asyncio.timeout(20):
                while read(control, operation_id).status != "running":
                    await asyncio.sleep(0.05)
            assert await control._engine.known([operation_id, "unheard-of"]) == {operation_id: True}
            return operation_id
        finally:
            await control.stop()

    async def second(operation_id: str) -> None:
        control = started()
        await control.start()
        try:
            operation = read(control, operation_id)
            assert operation.status == "failed"
            assert operation.error is not None
            assert operation.error["code"] == "operation_abandoned"
        finally:
            await control.stop()

    operation_id = asyncio.run(first())
    with sqlite3.connect(tmp_path / "operations.db") as connection:
        connection.execute("UPDATE workflow_status SET status = 'MAX_RECOVERY_ATTEMPTS_EXCEEDED'")
    asyncio.run(second(operation_id))


def test_a_roll_back_that_follows_begins_at_once(tmp_path: Path) -> None:
    """It is asked for from within another workflow, and must not be taken for a part of it."""
    with running_server(tmp_path) as server:
        options = {"guests": {"*": {"duration": 1.0}}}
        server.post("/clusters", name="lab", provider="fake", options=options)
        accepted = server.post("/deploy", egg="hello-web", cluster="lab", instance_name="web")
        assert server.wait(accepted["operation_id"])["status"] == "succeeded"
        deployment = f"/deployments/{accepted['deployment_id']}"
        update = server.post(f"{deployment}/update", parameters={"greeting": "again"})
        server.wait_for_step(update["operation_id"], "cloud-init")
        server.post(f"{deployment}/cancel")
        assert server.wait(update["operation_id"])["status"] == "cancelled"
        wait_until(lambda: bool(server.get(deployment)["status"] == "completed"), "the roll-back", 6)
        assert server.get(deployment)["revision"] == 3
        assert "not taken by the engine" not in (tmp_path / "server.log").read_text()
