"""A registry in a temporary folder, images to put into it, and a reader as strict as a client is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iceshelves.images.registry import Publication, Published, Registry
from testbed.hosts import scratch_directory
from testbed.made_images import Made


class Bench:
    """A registry and what tests do with it over and over."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "registry"
        self.registry = Registry.create(self.root)
        self._made = 0

    def publication(self, made: Made, channel: str = "stable", **more: Any) -> Publication:
        """``made``, written to a folder of its own."""
        self._made += 1
        return Publication(made.files(self.folder / f"made-{self._made}"), channel, **more)

    def publish(self, made: Made, channel: str = "stable", **more: Any) -> Published:
        """Publish ``made``."""
        return self.registry.publish(self.publication(made, channel, **more))

    def aliases(self, view: str = "", kind: str = "container") -> dict[str, str]:
        """Aliases of a view's images of one type, each with the label of the newest version it binds to."""
        root = {"container": "squashfs", "virtual-machine": "disk-kvm.img"}[kind]
        found: dict[str, str] = {}
        for product in read_view(self.root / "tree", view).values():
            labels = [
                version["label"] for _, version in sorted(product["versions"].items())
                if root in version["items"]
            ]  # fmt: skip
            for alias in product["aliases"].split(",") if labels else ():
                assert alias not in found
                found[alias] = labels[-1]
        return found


def read_view(tree: Path, view: str = "") -> dict[str, Any]:
    """All products of a view; every catalogue that its index names is there, and every file of theirs."""
    folder = tree / view
    products: dict[str, Any] = {}
    index = json.loads((folder / "streams/v1/index.json").read_bytes())
    for stream in index["index"].values():
        catalogue = json.loads((folder / stream["path"]).read_bytes())
        assert not products.keys() & catalogue["products"].keys()
        products |= catalogue["products"]
    for product in products.values():
        for version in product["versions"].values():
            for item in version["items"].values():
                assert (folder / item["path"]).stat().st_size == item["size"]
    return products


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder, in memory if there is room: every commit is synced, and here that proves nothing."""
    made = scratch_directory("registry")
    yield made
    shutil.rmtree(made)


@pytest.fixture
def bench(folder: Path) -> Iterator[Bench]:
    """A new registry."""
    made = Bench(folder)
    yield made
    made.registry.close()
