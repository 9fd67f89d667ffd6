"""Real parts for the tests in this folder: an Incus on a host of its own, and images in it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from testbed import images
from testbed.hosts import Host, missing_for_hosts, running_host


@pytest.fixture(scope="session")
def incus_host() -> Iterator[Host]:
    """A running Incus that is set up and empty, one for each test process; its API is at ``.socket``."""
    if reason := missing_for_hosts():
        pytest.skip(f"a real Incus: {reason}")
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    with running_host(f"ishost-{os.getpid()}-{worker}") as host:
        yield host


@pytest.fixture(scope="session")
def tiny_image(incus_host: Host) -> str:
    """Alias of a system that starts in 0.3 s and imitates cloud-init (``runcmd`` of plain strings only)."""
    if reason := images.missing_for_tiny():
        pytest.skip(f"the tiny image: {reason}")
    incus_host.import_image(images.tiny_files(), "tiny")
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
    if reason := images.missing_for_debian():
        pytest.skip(f"the Debian image: {reason}")
    suite, version = images.own_suite()
    incus_host.import_image(images.debian_files(suite), f"debian/{version}")
    return f"debian/{version}"
