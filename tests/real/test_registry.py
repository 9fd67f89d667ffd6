"""The registry's tree, served by a file server or by nginx alone, to the stock clients and their daemons."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from iceshelves.images.files import ImageFiles
from iceshelves.images.registry import Group, Publication, Published, Registry, make_deltas, verify, xdelta
from testbed import images
from testbed.file_server import Served, missing_for_nginx, serving, serving_by_nginx
from testbed.hosts import INCUS, LXD, Host, missing_for_hosts, running_host, scratch_directory
from testbed.made_images import Made

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
Serve = Callable[[Path, str, Path], AbstractContextManager[Served]]


@pytest.fixture(scope="module", params=["incus", "lxd"])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    hypervisor = {"incus": INCUS, "lxd": LXD}[request.param]
    if reason := missing_for_hosts(hypervisor) or images.missing_for_tiny():
        pytest.skip(f"a real {hypervisor.family}: {reason}")
    with running_host(f"isreg-{os.getpid()}-{request.param}", hypervisor) as started:
        yield started


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that nginx' workers may enter."""
    path = scratch_directory("registry")
    yield path
    shutil.rmtree(path)


@dataclass(frozen=True)
class Client:
    """The stock client of a host, with the registry as its remote ``reg``."""

    host: Host

    def add(self, served: Served, view: str = "") -> None:
        """Add a view as a remote, with the server's certificate pinned."""
        configuration = self.host.root / ".config" / self.host.hypervisor.client
        (configuration / "servercerts").mkdir(parents=True, exist_ok=True)
        (configuration / "servercerts/reg.crt").write_text(served.certificate)
        self("remote", "add", "reg", f"{served.url}/{view}".rstrip("/"), "--protocol=simplestreams")

    def remove(self) -> None:
        self("remote", "remove", "reg")
        self.forget()

    def forget(self) -> None:
        """Let both caches of catalogues run out, the client's of five minutes and the daemon's of an hour."""
        for cache in (self.host.root / ".cache", self.host.daemon_directory / "cache"):
            for file in cache.rglob("*.json"):
                file.unlink()

    def listed(self) -> dict[str, set[str]]:
        """Fingerprints of the remote's images with their aliases."""
        found = json.loads(self("image", "list", "reg:", "--format=json"))
        return {each["fingerprint"]: {alias["name"] for alias in each["aliases"] or ()} for each in found}

    def __call__(self, *arguments: str) -> str:
        hypervisor = self.host.hypervisor
        own = (f"{hypervisor.directory}={self.host.daemon_directory}", f"HOME={self.host.root}")
        return self.host.exec("env", *own, hypervisor.client, *arguments).stdout


def build(folder: Path, version: str) -> ImageFiles:
    """The tiny system as version ``version`` of an appliance; each has a file of its own."""
    root = folder / "root"
    if not root.exists():
        subprocess.run(["unsquashfs", "-q", "-n", "-d", root, images.tiny_files()[1]], check=True)
    (root / "version").write_text(f"{version}\n")
    made = Made("tiny", version, ARCHITECTURE, rootfs=None).files(folder / version)
    squashfs = folder / version / "rootfs.squashfs"
    subprocess.run(
        ["mksquashfs", root, squashfs, "-comp", "gzip", "-noappend", "-quiet", "-no-progress"], check=True
    )
    return ImageFiles(made.metadata, squashfs)


def publish(registry: Registry, folder: Path, version: str) -> Published:
    return registry.publish(Publication(build(folder, version)))


@pytest.mark.parametrize("serve", [serving, serving_by_nginx], ids=["file-server", "nginx"])
def test_stock_clients_launch_and_export_what_was_published(host: Host, folder: Path, serve: Serve) -> None:
    if serve is serving_by_nginx and (reason := missing_for_nginx()):
        pytest.skip(reason)
    client = Client(host)
    assert host.cable is not None
    with (
        Registry.create(folder / "registry") as registry,
        serve(folder / "registry/tree", host.cable.gateway, folder / "server") as served,
    ):
        old, rebuilt, new = (
            publish(registry, folder, version).entry for version in ("1.0.0", "1.0.1", "1.1.0")
        )
        make_deltas(registry, Group("stable", "tiny", ARCHITECTURE))
        view = f"stable/{ARCHITECTURE}" if serve is serving_by_nginx else ""
        client.add(served, view)
        try:
            expected = {
                entry.fingerprints["container"]: {
                    name for alias in aliases for name in (alias, f"{alias}/{ARCHITECTURE}")
                }
                for entry, aliases in (
                    (old, ["tiny/1.0.0"]), (rebuilt, ["tiny/1.0.1"]), (new, ["tiny", "tiny/1.1.0"])
                )
            }  # fmt: skip
            assert client.listed() == expected
            client("launch", "reg:tiny", "newest")
            client("launch", "reg:tiny/1.0.0", "exact")
            for name, entry in (("newest", new), ("exact", old)):
                assert client("exec", name, "--", "cat", "/version") == f"{entry.version}\n"
                base = client("config", "get", name, "volatile.base_image").strip()
                assert base == entry.fingerprints["container"]
            client("image", "export", "reg:tiny/1.0.1", str(folder / "out"))
            exported = (folder / "out").read_bytes() + (folder / "out.root").read_bytes()
            assert rebuilt.fingerprints["container"] == hashlib.sha256(exported).hexdigest()
            registry.rollback(Group("stable", "tiny", ARCHITECTURE))
            client.forget()
            client("launch", "reg:tiny", "after")
            assert client("exec", "after", "--", "cat", "/version") == "1.0.1\n"
        finally:
            client("delete", "--force", *client("list", "--format=csv", "--columns=n").split())
            client.remove()
        assert verify(registry).findings == ()


def test_a_refresh_fetches_the_delta_alone(host: Host, folder: Path) -> None:
    if not xdelta.is_installed():
        pytest.skip("not installed: xdelta3")
    client = Client(host)
    assert host.cable is not None
    with (
        Registry.create(folder / "registry") as registry,
        serving(folder / "registry/tree", host.cable.gateway, folder / "server") as served,
    ):
        first = publish(registry, folder, "2.0.0").entry
        client.add(served)
        try:
            client("init", "reg:tiny", "one")
            second = publish(registry, folder, "2.0.1").entry
            report = make_deltas(registry, Group("stable", "tiny", ARCHITECTURE))
            assert set(report.made) == {first.serial}, report
            client.forget()
            before = len(served.asked())
            client("image", "refresh", first.fingerprints["container"])
            asked = served.asked()[before:]
            assert [path for path in asked if path.endswith(".vcdiff")]
            assert not [path for path in asked if path.endswith(".squashfs")]
            here = {image["fingerprint"] for image in json.loads(client("image", "list", "--format=json"))}
            assert second.fingerprints["container"] in here
            assert first.fingerprints["container"] not in here
            client("launch", "reg:tiny", "two")
            assert client("exec", "two", "--", "cat", "/version") == "2.0.1\n"
        finally:
            client("delete", "--force", *client("list", "--format=csv", "--columns=n").split())
            client.remove()
