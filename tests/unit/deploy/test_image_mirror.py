"""Which files an agent may ask for, and which bytes of them; what is allowed is what an index names."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from iceshelves.clusters.requests import ClusterChange, NewCluster
from iceshelves.clusters.rows import Act
from iceshelves.core.errors import Failed, InvalidInput, NotFound, Temporary
from iceshelves.deploy.image_mirror import INDEX, ImageMirror, Part, read_list
from iceshelves.store.models import Cluster

from .conftest import ADMIN, Plane

ROOT = b"root file system"
GOOD = {"path": "images/1/root.squashfs", "size": len(ROOT), "sha256": hashlib.sha256(ROOT).hexdigest()}
LISTS = {
    INDEX: {"index": {"images": {"path": "streams/v1/images.json"}}},
    "streams/v1/images.json": {"products": {"a": {"versions": {"1": {"items": {"root": GOOD}}}}}},
}
OPTIONS = {"images_through": "server", "image_servers": [{"name": "own", "url": "https://own.example.org/x"}]}


class Mirrored(ImageMirror):
    """A mirror of an image server that is a dictionary."""

    def __init__(self, plane: Plane, folder: Path) -> None:
        super().__init__(plane.control.database, folder, 10**6)
        self.files = {path: json.dumps(value).encode() for path, value in LISTS.items()}
        self.files[str(GOOD["path"])] = ROOT
        self.asked: list[str] = []
        self.away = False

    @asynccontextmanager
    async def _answer(self, url: str, path: str) -> AsyncIterator[Any]:
        self.asked.append(f"{url}/{path}")
        if self.away:
            raise Temporary("away", code="image_server_unreachable")
        yield _Answer(self.files[str(path)])


class _Answer:
    def __init__(self, data: bytes) -> None:
        self.content_length = len(data)
        self.content = self
        self._data = data

    async def iter_any(self) -> AsyncIterator[bytes]:
        yield self._data

    def iter_chunked(self, _size: int) -> AsyncIterator[bytes]:
        return self.iter_any()


def make_site(plane: Plane, **changed: Any) -> int:
    new = NewCluster(name="site", provider="incus", connection_method="agent-poll", options=OPTIONS)
    cluster: int = plane.control.clusters.add(ADMIN, new.model_copy(update=changed))
    return cluster


async def got(part: Part) -> bytes:
    return b"".join([data async for data in part.chunks])


def test_what_the_index_names_can_be_had(plane: Plane, tmp_path: Path) -> None:
    async def story() -> None:
        site, mirror = make_site(plane), Mirrored(plane, tmp_path / "images")
        for path, content in mirror.files.items():
            part = await mirror.open(site, "own", str(path))
            assert (await got(part), part.whole, part.size) == (content, True, len(content))
        part = await mirror.open(site, "own", str(GOOD["path"]), "bytes=5-8")
        assert (await got(part), part.start, part.end, part.whole) == (b"file", 5, 9, False)
        part = await mirror.open(site, "own", INDEX, "bytes=-3")
        assert await got(part) == mirror.files[INDEX][-3:]
        assert mirror.asked == [f"https://own.example.org/x/{path}" for path in mirror.files], "each once"
        await mirror.close()

    asyncio.run(story())


@pytest.mark.parametrize(
    "path",
    [
        "images/2/root.squashfs", "streams/v1/other.json", "streams/v1/index.sjson", "../secret",
        "images/../x",
        "/etc/passwd", "images//1", "images/1/root.squashfs/", "images/%2e%2e/x", "images\\1", "https://x/y",
        "images/1/root.squashfs?x", ".hidden", "a" * 2000, "images/1/root\x00", "",
    ],
)  # fmt: skip
def test_nothing_else_can_be_had(plane: Plane, tmp_path: Path, path: str) -> None:
    async def story() -> None:
        mirror = Mirrored(plane, tmp_path / "images")
        with pytest.raises(NotFound) as refused:
            await mirror.open(make_site(plane), "own", path)
        assert refused.value.code == "image_file_not_found"
        assert set(mirror.asked) <= {f"https://own.example.org/x/{known}" for known in LISTS}
        await mirror.close()

    asyncio.run(story())


def test_only_the_clusters_own_servers_and_only_where_it_is_wanted(plane: Plane, tmp_path: Path) -> None:
    async def refusal(cluster: int, server: str) -> str:
        mirror = Mirrored(plane, tmp_path / "images")
        with pytest.raises(NotFound) as refused:
            await mirror.open(cluster, server, INDEX)
        assert mirror.asked == []
        return refused.value.code

    site = make_site(plane)
    usual = make_site(plane, name="usual", options={"images_through": "server"})
    alone = make_site(plane, name="alone", options={})
    assert asyncio.run(refusal(site, "images")) == "image_server_not_found"
    assert asyncio.run(refusal(usual, "own")) == "image_server_not_found"
    assert asyncio.run(refusal(alone, "images")) == "no_image_mirror"
    assert asyncio.run(refusal(999, "own")) == "no_image_mirror"
    assert Mirrored(plane, tmp_path)._url_of(usual, "images") == "https://images.linuxcontainers.org"


def test_a_list_that_cannot_be_had_anew_is_used_as_it_was(
    plane: Plane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        site, mirror = make_site(plane), Mirrored(plane, tmp_path / "images")
        monkeypatch.setattr("iceshelves.deploy.image_mirror._FRESH", -1.0)
        await mirror.open(site, "own", str(GOOD["path"]))
        mirror.away = True
        assert await got(await mirror.open(site, "own", INDEX)) == mirror.files[INDEX]
        fresh = Mirrored(plane, tmp_path / "other")
        fresh.away = True
        with pytest.raises(Temporary):
            await fresh.open(site, "own", INDEX)
        await mirror.close()

    asyncio.run(story())


def test_where_the_option_means_nothing_it_is_refused(plane: Plane) -> None:
    with pytest.raises(InvalidInput) as refused:
        plane.control._reach.connection(
            Cluster(name="here", provider="incus", connection_method="unix-socket", endpoint_url="/run/x",
                    project="default", options=OPTIONS)
        )  # fmt: skip
    assert refused.value.code == "field_without_effect"
    with pytest.raises(InvalidInput) as refused:
        make_site(plane, options={"images_through": "elsewhere"})
    assert refused.value.code == "invalid_options"
    site = make_site(plane)
    plane.control.clusters.change(Act(ADMIN, site), ClusterChange(options={}))
    with plane.control.database.read() as session:
        assert session.get_one(Cluster, site).options == {}


@pytest.mark.parametrize(
    ("item", "kept"),
    [
        (GOOD, True),
        ({**GOOD, "path": "../up"}, False),
        ({**GOOD, "path": "a/./b"}, False),
        ({**GOOD, "path": 5}, False),
        ({**GOOD, "size": 0}, False),
        ({**GOOD, "size": "16"}, False),
        ({**GOOD, "sha256": "A" * 64}, False),
        ({**GOOD, "sha256": "../" + "0" * 61}, False),
        ({"path": "a/b", "size": 5}, False),
        ({**GOOD, "path": "images/x/amd64/cloud/20240101_23:08/incus.tar.xz"}, True),
    ],
)
def test_items_of_a_list(item: dict[str, Any], kept: bool) -> None:
    raw = json.dumps({"products": {"a": {"versions": {"1": {"items": {"root": item}}}}}}).encode()
    assert list(read_list(raw, "streams/v1/images.json").items) == ([item["path"]] if kept else [])


def test_lists_that_are_none() -> None:
    # what some other service answers in JSON is no list either, and is not passed on
    for raw in (b"", b"{", b"\xff", b"[" * 100_000, b"[]", b"null", b'{"index": []}', b'{"secret": 1}'):
        with pytest.raises(Failed) as refused:
            read_list(raw, INDEX)
        assert refused.value.code == "bad_image_index"
    value = {"index": {"a": 5, "b": {}, "c": {"path": "images/x"}}}
    assert read_list(json.dumps(value).encode(), INDEX).paths == ()
