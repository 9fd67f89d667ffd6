"""A registry that is a folder, copied by rsync itself; a server's certificate, as a socket shows it."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from iceshelves.cli.pushing import push
from iceshelves.cli.remotes import certificate_to_pin
from iceshelves.core.errors import Failed
from iceshelves.images.registry import Group, Publication, Registry, verify_tree
from testbed.certificates import Made as Certificate
from testbed.certificates import Order, make
from testbed.made_images import Made


def test_a_copy_is_whole_follows_its_registry_and_leaves_strangers_alone(tmp_path: Path) -> None:
    copy = tmp_path / "www" / "pictures"
    copy.parent.mkdir()
    with Registry.create(tmp_path / "registry") as registry:
        tree = registry.layout.tree
        for number, serial in enumerate(("20260101_0600", "20260201_0600")):
            made = Made(version=f"1.{number}", serial=serial, rootfs=serial.encode())
            registry.publish(Publication(made.files(tmp_path / serial)))
        first = push(tree, str(copy), delete=False)
        assert first.files > 4
        assert (verify_tree(copy).clean, verify_tree(copy).images) == (True, verify_tree(tree).images)
        assert push(tree, str(copy), delete=False).files == 0
        strangers = [copy / "images" / "holiday.jpg", copy / "index.html"]
        for path in strangers:
            path.write_text("mine")

        registry.rollback(Group("stable", "nginx", "amd64"))
        assert push(tree, str(copy), delete=False).files == 6  # a catalogue and an index for each view
        [gone] = [path for path in (tree / "images").glob("*.squashfs") if b"20260201" in path.read_bytes()]
        gone.unlink()
        push(tree, str(copy), delete=False)
        assert (copy / "images" / gone.name).exists()
        assert push(tree, str(copy), delete=True).deleted == 1
    assert not (copy / "images" / gone.name).exists()
    assert all(path.read_text() == "mine" for path in strangers)
    assert [finding for finding in verify_tree(copy).findings if finding.severity == "error"] == []


def test_what_rsync_says_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with Registry.create(tmp_path / "registry") as registry, pytest.raises(Failed, match="Not a directory"):
        push(registry.layout.tree, str(tmp_path / "file" / "www"), delete=False)


@contextmanager
def showing(certificate: Certificate, folder: Path) -> Iterator[str]:
    """A server that does nothing but show ``certificate``; its URL."""
    chain = folder / "server.pem"
    chain.write_text(certificate.pem + certificate.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            for _ in range(2):
                connection, _ = listener.accept()
                with connection:
                    try:
                        context.wrap_socket(connection, server_side=True).close()
                    except OSError:  # whoever does not trust it hangs up
                        continue

        threading.Thread(target=answer, daemon=True).start()
        yield f"https://localhost:{listener.getsockname()[1]}/iceshelves/registry/default"


def test_what_a_server_shows_is_pinned_if_we_trust_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = make(Order(hosts=("localhost",)))
    trusted = tmp_path / "trusted.pem"
    trusted.write_text(own.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    with showing(own, tmp_path) as url:
        assert certificate_to_pin(url) == own.pem
    with showing(make(Order(hosts=("localhost",))), tmp_path) as url, pytest.raises(Failed) as failed:
        certificate_to_pin(url)
    assert failed.value.code == "certificate_not_trusted"
