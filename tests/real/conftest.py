"""Real parts for the tests in this folder: an Incus and an LXD on hosts of their own, and images in them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from testbed import images
from testbed.hosts import INCUS, LXD, Host, Hypervisor, missing_for_hosts, running_host


@pytest.fixture(scope="session")
def incus_host() -> Iterator[Host]:
    """A running Incus that is set up and empty, one for each test process; its API is at ``.socket``."""
    yield from _host_of(INCUS)


@pytest.fixture(scope="session")
def lxd_host() -> Iterator[Host]:
    """A running LXD, likewise."""
    yield from _host_of(LXD)


def _host_of(hypervisor: Hypervisor) -> Iterator[Host]:
    if reason := missing_for_hosts(hypervisor):
        pytest.skip(f"a real {hypervisor.family}: {reason}")
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    with running_host(f"is{hypervisor.family}-{os.getpid()}-{worker}", hypervisor) as host:
        yield host


@pytest.fixture(scope="session")
def tiny_image(incus_host: Host) -> str:
    """Alias of a system that starts in 0.3 s and imitates cloud-init (``runcmd`` of plain strings only)."""
    return _import_tiny(incus_host)


@pytest.fixture(scope="session")
def lxd_tiny_image(lxd_host: Host) -> str:
    """The same, in LXD."""
    return _import_tiny(lxd_host)


def _import_tiny(host: Host) -> str:
    if reason := images.missing_for_tiny():
        pytest.skip(f"the tiny image: {reason}")
    host.import_image(images.tiny_files(), "tiny")
    return "tiny"


@pytest.fixture(scope="session")
def plain_image(incus_host: Host) -> str:
    """Alias of the tiny system without any cloud-init."""
    if reason := images.missing_for_tiny():
        pytest.skip(f"the plain image: {reason}")
    incus_host.import_image(images.plain_files(), "plain")
    return "plain"


@pytest.fixture(scope="session")
def debian_image(incus_host: Host) -> str:
    """Alias of a Debian with the real cloud-init, ``debian/12`` or ``debian/13`` as on this machine."""
    return _import_debian(incus_host)


@pytest.fixture(scope="session")
def lxd_debian_image(lxd_host: Host) -> str:
    """The same, in LXD."""
    return _import_debian(lxd_host)


def _import_debian(host: Host) -> str:
    if reason := images.missing_for_debian():
        pytest.skip(f"the Debian image: {reason}")
    suite, version = images.own_suite()
    host.import_image(images.debian_files(suite), f"debian/{version}")
    return f"debian/{version}"
