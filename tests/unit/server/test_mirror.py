"""Images that agents pass on, over the API: whole files, parts of them, and refusals."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from iceshelves.core.errors import Temporary
from iceshelves.core.ranges import span
from iceshelves.deploy.image_mirror import Part

DATA = b"root file system"


@pytest.fixture
def ask(make_server: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Ask as the agent of a cluster whose image server ``own`` has one file, ``r``."""
    server = make_server()
    body = {
        "name": "site", "provider": "incus", "connection_method": "agent-poll",
        "options": {"images_through": "server", "image_servers": [{"name": "own", "url": "https://x.test"}]},
    }  # fmt: skip
    assert server.post("/api/clusters", json=body).status_code == 201
    key = server.post("/api/clusters/site/enroll-original").json()["agent_key"]

    async def once(data: bytes) -> AsyncIterator[bytes]:
        yield data

    whole_open = server.control.images.open

    async def opened(cluster: int, name: str, path: str, asked: str) -> Part:
        if path == "away":
            raise Temporary("The image server cannot be reached.", code="image_server_unreachable")
        if (name, path) != ("own", "r"):
            part: Part = await whole_open(cluster, name, path, asked)
            return part
        start, end, whole = span(asked, len(DATA))
        return Part(start, end, len(DATA), whole, "application/octet-stream", once(DATA[start:end]))

    monkeypatch.setattr(server.control.images, "open", opened)

    def get(path: str, name: str = "own", **headers: str) -> Any:
        return server.client.get(
            f"/iceshelves/api/agent/v1/mirror/{name}",
            params={"path": path},
            headers={"Authorization": f"Bearer {key}", **headers},
        )

    return get


def test_a_file_and_a_part_of_it(ask: Callable[..., Any]) -> None:
    whole = ask("r")
    assert (whole.status_code, whole.content) == (200, DATA)
    assert whole.headers["Content-Length"] == str(len(DATA))
    assert "Content-Range" not in whole.headers
    part = ask("r", Range="bytes=5-8")
    assert (part.status_code, part.content) == (206, b"file")
    assert part.headers["Content-Range"] == "bytes 5-8/16"


def test_refusals(ask: Callable[..., Any]) -> None:
    found = [
        (answer.status_code, answer.json()["error_code"])
        for answer in (
            ask("r", Range="bytes=99-"), ask("../r"), ask("r", "other"), ask("away"), ask(""),
        )
    ]  # fmt: skip
    assert found == [
        (400, "invalid_range"),
        (404, "image_file_not_found"),
        (404, "image_server_not_found"),
        (503, "image_server_unreachable"),
        (400, "invalid_request"),
    ]
