"""One bed for each provider that the contract is checked on: the fake, and a real Incus and LXD in each way.

``ICESHELVES_TEST_INCUS`` and ``ICESHELVES_TEST_LXD`` may name the socket of a daemon that has the image
``tiny``; otherwise a host is started for the tests.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Iterator

import pytest

from contract.bed import FAKE_SCRIPT, Bed
from iceshelves.connections.values import AgentStream, Connection, Scenario, SshSocket, TlsApi, UnixSocket
from iceshelves.providers.fake.world import forget_world
from iceshelves.providers.registry import open_provider
from testbed import images
from testbed.agents import agent_beside
from testbed.hosts import INCUS, LXD, Host, Hypervisor, missing_for_hosts, running_host
from testbed.https import Https
from testbed.sshd import missing_for_sshd, running_sshd


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def incus_host() -> Iterator[Host]:
    """A host whose Incus holds the image ``tiny``."""
    yield from _host_of(INCUS)


@pytest.fixture(scope="session")
def lxd_host() -> Iterator[Host]:
    """A host whose LXD holds the image ``tiny``."""
    yield from _host_of(LXD)


def _host_of(hypervisor: Hypervisor) -> Iterator[Host]:
    if reason := missing_for_hosts(hypervisor) or images.missing_for_tiny():
        pytest.skip(f"a real {hypervisor.family}: {reason}")
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    with running_host(f"iscontract-{hypervisor.family}-{os.getpid()}-{worker}", hypervisor) as host:
        host.import_image(images.tiny_files(), "tiny")
        yield host


@pytest.fixture(scope="session")
def incus_direct(incus_host: Host) -> TlsApi:
    """The HTTPS API of that Incus, which trusts us."""
    return Https.of(incus_host).joined("contract")


@pytest.fixture(scope="session")
def lxd_direct(lxd_host: Host) -> TlsApi:
    """The HTTPS API of that LXD, which trusts us."""
    return Https.of(lxd_host).joined("contract")


@pytest.fixture(scope="session")
def incus_ssh(incus_host: Host) -> Iterator[SshSocket]:
    """The socket of that Incus through SSH."""
    yield from _through_ssh(incus_host)


@pytest.fixture(scope="session")
def lxd_ssh(lxd_host: Host) -> Iterator[SshSocket]:
    """The socket of that LXD through SSH."""
    yield from _through_ssh(lxd_host)


def _through_ssh(host: Host) -> Iterator[SshSocket]:
    if reason := missing_for_sshd():
        pytest.skip(f"SSH: {reason}")
    with running_sshd(host) as sshd:
        yield sshd.connection


@pytest.fixture(scope="session")
def incus_agent(incus_host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentStream]:
    """The socket of that Incus through an agent's streams."""
    yield from _through_an_agent(incus_host, tmp_path_factory)


@pytest.fixture(scope="session")
def lxd_agent(lxd_host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentStream]:
    """The socket of that LXD through an agent's streams."""
    yield from _through_an_agent(lxd_host, tmp_path_factory)


def _through_an_agent(host: Host, folders: pytest.TempPathFactory) -> Iterator[AgentStream]:
    with agent_beside(host, folders.mktemp("agent")) as beside:
        yield beside.connection


_REAL = [f"{family}{method}" for family in ("incus", "lxd") for method in ("", "-direct", "-ssh", "-agent")]


@pytest.fixture(params=["fake", *_REAL])
def connection(request: pytest.FixtureRequest) -> Iterator[tuple[str, Connection]]:
    family, _, method = str(request.param).partition("-")
    if method:
        yield family, request.getfixturevalue(f"{family}_{method}")
        return
    if family != "fake":
        socket = os.environ.get(f"ICESHELVES_TEST_{family.upper()}")
        path = socket or str(request.getfixturevalue(f"{family}_host").socket)
        yield family, UnixSocket(path, image_servers=())
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
