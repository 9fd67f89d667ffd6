"""One bed for each provider that the contract is checked on: the fake, and a real Incus and LXD.

``ICESHELVES_TEST_INCUS`` and ``ICESHELVES_TEST_LXD`` may name the socket of a daemon that has the image
``tiny``; otherwise a host is started for the tests.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Iterator

import pytest

from contract.bed import FAKE_SCRIPT, Bed
from iceshelves.providers.connection import Connection, Scenario, UnixSocket
from iceshelves.providers.fake.world import forget_world
from iceshelves.providers.registry import open_provider
from testbed import images
from testbed.hosts import INCUS, LXD, Hypervisor, missing_for_hosts, running_host


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def incus_socket() -> Iterator[str]:
    """The socket of an Incus that holds the image ``tiny``."""
    yield from _socket_of(INCUS)


@pytest.fixture(scope="session")
def lxd_socket() -> Iterator[str]:
    """The socket of an LXD that holds the image ``tiny``."""
    yield from _socket_of(LXD)


def _socket_of(hypervisor: Hypervisor) -> Iterator[str]:
    if given := os.environ.get(f"ICESHELVES_TEST_{hypervisor.family.upper()}"):
        yield given
        return
    if reason := missing_for_hosts(hypervisor) or images.missing_for_tiny():
        pytest.skip(f"a real {hypervisor.family}: {reason}")
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    with running_host(f"iscontract-{hypervisor.family}-{os.getpid()}-{worker}", hypervisor) as host:
        host.import_image(images.tiny_files(), "tiny")
        yield str(host.socket)


@pytest.fixture(params=["fake", "incus", "lxd"])
def connection(request: pytest.FixtureRequest) -> Iterator[tuple[str, Connection]]:
    family: str = request.param
    if family != "fake":
        yield family, UnixSocket(request.getfixturevalue(f"{family}_socket"), image_servers=())
        return
    world = f"contract-{uuid.uuid4().hex[:8]}"
    yield family, Scenario(world, script=FAKE_SCRIPT)
    forget_world(world)


@pytest.fixture
async def bed(connection: tuple[str, Connection], anyio_backend: str) -> AsyncIterator[Bed]:
    family, reached = connection
    bed = Bed(family, reached, open_provider(family, reached), f"ct-{uuid.uuid4().hex[:6]}")
    try:
        yield bed
    finally:
        await bed.clean()
