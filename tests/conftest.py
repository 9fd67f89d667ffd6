"""Holds for all tests: unit tests open no socket, the test bed can be imported, PostgreSQL is a fixture."""

from __future__ import annotations

import socket
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import settings

TESTS = Path(__file__).parent
sys.path.insert(0, str(TESTS))

from testbed.postgres import Postgres, missing_for_postgres, running_postgres  # noqa: E402  (after the path)

# how long an example takes says more of the machine than of the code
settings.register_profile("ours", deadline=None)
settings.load_profile("ours")


class SocketUsed(AssertionError):
    """A unit test reached for the network; give the code under test a fake instead."""


def _refuse(_self: socket.socket, address: object = None, *_rest: object) -> NoReturn:
    raise SocketUsed(f"a unit test tried to use the socket address {address!r}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """Refuse every address to unit tests.  Socket pairs have none, so event loops work as ever."""
    if not item.path.is_relative_to(TESTS / "unit"):
        return (yield)
    with pytest.MonkeyPatch.context() as patch:
        for method in ("connect", "connect_ex", "bind", "sendto"):
            patch.setattr(socket.socket, method, _refuse)
        return (yield)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """A real PostgreSQL, one for each test process."""
    if reason := missing_for_postgres():
        pytest.skip(f"PostgreSQL: {reason}")
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: Postgres) -> Iterator[str]:
    """The URL of a new, empty database, as ``postgresql://…``."""
    with postgres_server.database() as url:
        yield url
