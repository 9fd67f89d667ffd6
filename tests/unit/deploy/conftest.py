"""A control plane on a fake world, with an engine whose journal survives when the process is "killed"."""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import shutil
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from iceshelves.access import bootstrap
from iceshelves.access.policy import Actor, Role
from iceshelves.clusters.requests import NewCluster
from iceshelves.connections.values import Scenario
from iceshelves.core.settings import Settings
from iceshelves.deploy.control import ControlPlane
from iceshelves.deploy.requests import Accepted, DeployRequest
from iceshelves.eggs import Egg, egg_from_files, pack
from iceshelves.operations.engine import Json, Work, Workflow
from iceshelves.providers.fake.world import FakeWorld, forget_world, open_world
from iceshelves.store import models
from iceshelves.store.database import Database, sqlite_url
from iceshelves.store.models import Cluster, Deployment, LogLine, Operation, Step

ADMIN = Actor(1, 1, "admin", Role.ADMIN)
_worlds = itertools.count()


class Killed(BaseException):
    """The process ends here: nothing after this line happens."""


class MemoryEngine:
    """The engine port on a dictionary.  ``hook`` is told of each moment at which a process could die."""

    def __init__(self, records: dict[str, dict[str, str]], hook: Callable[[str], None]) -> None:
        self.records = records
        self.hook = hook
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._workflow: Workflow | None = None

    async def start(self, workflow: Workflow) -> None:
        self._workflow = workflow
        for operation_id in list(self.records):
            await self.submit(operation_id)

    async def submit(self, operation_id: str) -> None:
        record = self.records.setdefault(operation_id, {})
        if operation_id not in self.tasks and not _has_ended(record):
            assert self._workflow is not None
            run = self._workflow(_MemoryJournal(record, self.hook), operation_id)
            self.tasks[operation_id] = asyncio.ensure_future(run)

    async def known(self, operation_ids: Sequence[str]) -> dict[str, bool]:
        return {key: not _has_ended(self.records[key]) for key in operation_ids if key in self.tasks}

    async def forget(self, operation_ids: Sequence[str]) -> None:
        for operation_id in operation_ids:
            self.records.pop(operation_id, None)

    async def stop(self) -> None:
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


def _has_ended(record: dict[str, str]) -> bool:
    return "end-cancelled" in record or json.loads(record.get("end", "{}")).get("ended", False)


class _MemoryJournal:
    def __init__(self, record: dict[str, str], hook: Callable[[str], None]) -> None:
        self._record = record
        self._hook = hook

    async def once(self, name: str, work: Work) -> Json:
        if name not in self._record:
            self._hook(f"before {name}")
            done = await work()
            self._hook(f"after {name}")
            self._record[name] = json.dumps(done)
        return json.loads(self._record[name])  # type: ignore[no-any-return]


class Plane:
    """What a test works with.  ``restart()`` is a new process on the same disk and the same hypervisor."""

    def __init__(self, data: Path, origin: Path | Plane) -> None:
        """``origin`` is an empty database to copy, or a stopped plane to go on from."""
        self.data = data
        self.hook: Callable[[str], None] = lambda _moment: None
        self.control: ControlPlane
        self.engine: MemoryEngine
        if isinstance(origin, Plane):
            shutil.copytree(origin.data, data)
            self.world_name, self.cluster_id = origin.world_name, origin.cluster_id
            self.records = copy.deepcopy(origin.records)
        else:
            data.mkdir()
            shutil.copy(origin, data / "iceshelves.db")
            self.world_name, self.cluster_id = f"world-{next(_worlds)}", 0
            self.records = {}
        self.new_process()

    @property
    def world(self) -> FakeWorld:
        return open_world(Scenario(self.world_name))

    def new_process(self) -> None:
        self.engine = MemoryEngine(self.records, lambda moment: self.hook(moment))
        settings = Settings(data=self.data, deployment_timeout=20, max_concurrent_deployments=50)
        self.control = ControlPlane(settings, self.engine)
        if not self.cluster_id:
            new = NewCluster(name="local", provider="fake", endpoint_url=f"fake://{self.world_name}")
            self.cluster_id = self.control.clusters.add(ADMIN, new)

    async def restart(self) -> None:
        await self.control.stop()
        self.new_process()
        await self.control.start()

    def add_egg(self, egg: Egg | None = None) -> int:
        egg = egg or make_egg()
        with self.control.database.write() as session:
            row = models.Egg(
                tenant_id=1,
                name=egg.name,
                version=str(egg.version),
                display_name=egg.name,
                category="base",
                egg_type=egg.metadata.egg_type,
                base_image=egg.metadata.base_image,
                metadata_json=dict(egg.metadata.raw),
                tags=[],
                digest=egg.digest,
                archive=bytes(pack(egg)),
                created_by="admin",
            )
            session.add(row)
            session.flush()
            return row.id

    def deploy(self, name: str = "web", egg: Egg | None = None, **wishes: Any) -> Accepted:
        request = DeployRequest(
            egg_id=self.add_egg(egg) if "egg_id" not in wishes else wishes.pop("egg_id"),
            cluster_id=self.cluster_id,
            instance_name=name,
            **wishes,
        )
        return self.control.deployments.create(ADMIN, request)

    async def ended(self, accepted: Accepted | str, seconds: float = 15) -> Operation:
        operation_id = accepted if isinstance(accepted, str) else accepted.operation_id
        async with asyncio.timeout(seconds):
            while True:
                operation = await asyncio.to_thread(self.operation, operation_id)
                if operation.finished_at is not None:
                    return operation
                task = self.engine.tasks.get(operation_id)
                if task is not None and task.done():
                    task.result()
                await asyncio.sleep(0.002)

    async def reached(self, operation_id: str, step: str, status: str = "running") -> None:
        async with asyncio.timeout(15):
            while self.steps(operation_id).get(step) != status:
                await asyncio.sleep(0.002)

    def limit_cluster(self, most: int) -> None:
        with self.control.database.write() as session:
            session.get_one(Cluster, self.cluster_id).max_operations = most

    def operation(self, operation_id: str) -> Operation:
        with self.control.database.read() as session:
            return session.get_one(Operation, operation_id)

    def deployment(self, deployment_id: int = 1) -> Deployment:
        with self.control.database.read() as session:
            return session.get_one(Deployment, deployment_id)

    def steps(self, operation_id: str) -> dict[str, str]:
        with self.control.database.read() as session:
            query = sa.select(Step).where(Step.operation_id == operation_id).order_by(Step.position)
            return {step.name: step.status for step in session.execute(query).scalars()}

    def log(self, source: str | None = None) -> list[str]:
        with self.control.database.read() as session:
            query = sa.select(LogLine).order_by(LogLine.id)
            lines = session.execute(query).scalars().all()
            return [line.message for line in lines if source in (None, line.source)]


def make_egg(
    name: str = "plain", version: str = "1.0.0", user_data: str = "#cloud-config\n{}\n", **metadata: Any
) -> Egg:
    fields = {
        "name": name,
        "version": version,
        "description": "for a test",
        "category": "base",
        "egg_type": "lxd-container",
        "base_image": "debian/13",
        **metadata,
    }
    files = {"metadata.json": json.dumps(fields).encode(), "cloud-init.yaml": user_data.encode()}
    return egg_from_files(files)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new, migrated database to copy: migrating takes longer than most tests."""
    path = tmp_path_factory.mktemp("template") / "iceshelves.db"
    database = Database(sqlite_url(path))
    database.migrate()
    bootstrap.prepare(database)
    database.close()
    return path


@pytest.fixture
def plane(tmp_path: Path, template: Path) -> Iterator[Plane]:
    made = Plane(tmp_path / "data", template)
    yield made
    made.control.database.close()
    forget_world(made.world_name)


Story = Callable[[Plane], Awaitable[None]]


@pytest.fixture
def play(plane: Plane) -> Callable[[Story], None]:
    """Run a story on a started control plane, and stop it however the story ends."""

    def run(story: Story) -> None:
        async def whole() -> None:
            await plane.control.start()
            try:
                await story(plane)
            finally:
                await plane.control.stop()

        asyncio.run(whole())

    return run
