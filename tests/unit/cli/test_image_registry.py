"""Published images: through a server that is made of answers, and in a real registry in a folder."""

from __future__ import annotations

import hashlib
import io
import json
import ssl
from pathlib import Path
from typing import Any

import pytest

from iceshelves.cli import remotes
from testbed.made_images import Made

IMAGE: dict[str, Any] = {
    "appliance": "nginx",
    "architecture": "amd64",
    "version": "1.22.1",
    "serial": "20260921_0600",
    "os": "Debian",
    "release": "bookworm",
    "description": "nginx 1.22.1",
    "channels": ["stable"],
    "aliases": ["nginx", "nginx/1.22.1"],
    "requirements": {},
    "fingerprints": {"container": "ab" * 32},
    "size": 3 * 1024**2,
    "published_at": "2026-01-31T12:00:00Z",
}
OLDER = {**IMAGE, "version": "1.22.0", "serial": "20260801_0600"}
REMOTE = {"path": "/iceshelves/registry/default", "channels": ["stable", "testing"]}


def made(folder: Path, **more: Any) -> tuple[str, str]:
    """Metadata and root file system of an image."""
    files = Made(**more).files(folder)
    return str(files.metadata), str(files.rootfs)


# ---- through the server


class Uploads:
    """The server's side of uploads, with what earlier tries have left in ``kept``."""

    def __init__(self, server: Any, kept: dict[str, bytes]) -> None:
        self.kept = kept
        self.offsets: list[int] = []
        self._answer = server.answer
        server.answer = self.answer

    def answer(self, sent: Any) -> Any:
        if "/api/uploads/" not in sent.path:
            return self._answer(sent)
        name = sent.path.rpartition("/")[2]
        here = self.kept.setdefault(name, b"")
        if sent.method == "PUT":
            offset = int(sent.query.removeprefix("offset="))
            assert offset == len(here)
            assert "Idempotency-Key" not in sent.headers
            self.offsets.append(offset)
            self.kept[name] = here + sent.body
        body = json.dumps({"sha256": name, "size": len(self.kept[name])}).encode()
        return type("Answer", (io.BytesIO,), {"status": 200, "getheader": lambda *_: None})(body)


def test_an_image_is_uploaded_in_pieces_from_where_it_stopped_and_published(
    run: Any, server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iceshelves.cli.uploading.PIECE", 100)
    metadata, rootfs = made(tmp_path, rootfs=bytes(250))
    content = Path(rootfs).read_bytes()
    sums = [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in (metadata, rootfs)]
    uploads = Uploads(server, {sums[0]: Path(metadata).read_bytes(), sums[1]: content[:120]})
    server.on("POST", "/api/images", {"outcome": "published", "channel": "testing", "image": IMAGE})
    done = run("image", "publish", metadata, rootfs, "--channel", "testing", "--alias", "nginx/lts")
    assert done.code == 0
    assert uploads.kept[sums[1]] == content
    assert uploads.offsets == [120, 220, 320]
    (sent,) = server.to("POST", "/api/images")
    assert sent.json == {
        "metadata": sums[0],
        "rootfs": sums[1],
        "channel": "testing",
        "aliases": ["nginx/lts"],
    }
    assert "rootfs.squashfs: going on after 120 B." in done.err
    assert "nginx 1.22.1 for amd64 of 20260921_0600 is published in testing." in done.out


def test_a_server_that_takes_nothing_ends_it(run: Any, server: Any, tmp_path: Path) -> None:
    metadata, rootfs = made(tmp_path)
    place = f"/api/uploads/{hashlib.sha256(Path(metadata).read_bytes()).hexdigest()}"
    server.on("GET", place, {"size": 0})
    server.on("PUT", place, {"size": 0})
    done = run("image", "publish", metadata, rootfs)
    assert (done.code, "upload_refused" in done.err) == (1, True)


def test_a_file_that_is_not_there_is_told_before_anything_is_sent(run: Any, server: Any) -> None:
    done = run("image", "publish", "none.tar.xz", "none.squashfs")
    assert (done.code, "file_not_found" in done.err, server.sent) == (1, True, [])
    assert run("image", "publish", "none.tar.xz").code == 2


def test_every_question_reaches_the_server(run: Any, server: Any, listed: Any) -> None:
    server.on("GET", "/api/images", listed("images", IMAGE))
    row = run("image", "list", "--channel", "stable", "--appliance", "nginx", "--arch", "amd64").out
    assert row.splitlines()[1].split()[:6] == [
        "nginx", "1.22.1", "amd64", "20260921_0600", "stable", "container",
    ]  # fmt: skip
    query = server.to("GET", "/api/images")[0].query
    assert "channel=stable&appliance=nginx&architecture=amd64" in query
    promoted = {"outcome": "promoted", "channel": "stable", "image": IMAGE}
    server.on("POST", "/api/images/promote", {"promoted": [promoted]})
    assert "promoted" in run("image", "promote", "nginx", "--from", "testing").out
    (sent,) = server.to("POST", "/api/images/promote")
    assert sent.json == {"appliance": "nginx", "source": "testing", "target": "stable"}
    for command, path in (("rollback", "rollback"), ("restore", "restore")):
        server.on("POST", f"/api/images/{path}", {"before": IMAGE, "now": OLDER})
        assert "nginx 1.22.0" in run("image", command, "nginx", "--arch", "arm64", "--channel", "testing").out
        (sent,) = server.to("POST", f"/api/images/{path}")
        assert sent.json == {"appliance": "nginx", "channel": "testing", "architecture": "arm64"}


def test_an_unclean_registry_is_status_1(run: Any, server: Any) -> None:
    finding = {
        "severity": "error",
        "code": "wrong_hash",
        "where": "images/x",
        "message": "Bad.",
        "hint": "Mend.",
    }
    numbers = {"views": 3, "images": 2, "files": 4, "read": 2048, "known_good": 0}
    server.on("GET", "/api/images/verify", {"clean": False, "findings": [finding], **numbers})
    done = run("image", "verify", "--everything")
    assert (done.code, done.out) == (1, "images/x: error: Bad. (wrong_hash)\n    Mend.\n")
    assert "1 error." in done.err
    assert server.to("GET", "/api/images/verify")[0].query == "everything=true"
    assert run("image", "verify", "--format", "json").code == 1


PLAN = {
    "dry_run": True,
    "withdrawals": [
        {"channel": "stable", "appliance": "nginx", "architecture": "amd64", "version": "1", "serial": "s"}
    ],
    "files": [{"path": "tree/images/x", "size": 1024}],
    "bytes": 1024,
}


def test_garbage_goes_only_when_somebody_has_seen_what(run: Any, server: Any) -> None:
    server.on("POST", "/api/images/gc", PLAN)
    shown = run("image", "gc", "--dry-run", "--newest", "2", "--days", "0", "--grace", "2h")
    assert (shown.code, shown.out.splitlines()[-1]) == (0, "1 file would go, 1.0 KiB.")
    wanted = {"newest": 2, "days": 0.0, "grace": 7200}
    assert [sent.json for sent in server.to("POST", "/api/images/gc")] == [{**wanted, "dry_run": True}]
    refused = run("image", "gc")
    assert (refused.code, "confirmation_needed" in refused.err) == (1, True)
    assert all(sent.json.get("dry_run") for sent in server.to("POST", "/api/images/gc"))
    assert run("image", "gc", "--yes").out.splitlines()[-1] == "1 file gone, 1.0 KiB."
    assert "dry_run" not in server.to("POST", "/api/images/gc")[-1].json


# ---- a registry in a folder


@pytest.fixture
def tree(run: Any, tmp_path: Path) -> tuple[str, str]:
    """A registry with two builds of nginx, and how to name it."""
    folder = str(tmp_path / "registry")
    for version, serial, channel in (
        ("1.22.0", "20260801_0600", "stable"),
        ("1.22.1", "20260921_0600", "testing"),
    ):
        files = made(tmp_path / serial, version=version, serial=serial, rootfs=serial.encode())
        assert run("image", "publish", *files, "--channel", channel, "--tree", folder).code == 0
    return "--tree", folder


def stable(run: Any, tree: tuple[str, str]) -> list[str]:
    return [
        entry["version"]
        for entry in run("image", "list", "--channel", "stable", "--format", "json", *tree).json
    ]


def test_a_folder_does_what_a_server_does_without_one(run: Any, server: Any, tree: tuple[str, str]) -> None:
    assert stable(run, tree) == ["1.22.0"]
    assert run("image", "promote", "nginx", "--from", "testing", *tree).code == 0
    assert stable(run, tree) == ["1.22.1", "1.22.0"]
    back = run("image", "rollback", "nginx", *tree)
    assert (back.code, stable(run, tree)) == (0, ["1.22.0"])
    assert f"iceshelves image restore nginx --tree {tree[1]}" in back.out
    assert run("image", "restore", "nginx", *tree).code == 0
    assert stable(run, tree) == ["1.22.1", "1.22.0"]
    assert run("image", "verify", *tree).err.endswith(": clean.\n")
    assert len(run("image", "list", "--limit", "1", *tree).out.splitlines()) == 2
    assert server.sent == []


def test_a_folder_answers_programs_as_a_server_does(run: Any, tree: tuple[str, str]) -> None:
    entries = run("image", "list", "--format", "json", *tree).json
    assert {frozenset(entry) for entry in entries} == {frozenset(IMAGE)}
    collected = run("image", "gc", "--dry-run", "--newest", "1", "--format", "json", *tree).json
    assert set(collected) == set(PLAN)


def test_garbage_of_a_folder_is_withdrawn_and_then_removed(run: Any, tree: tuple[str, str]) -> None:
    run("image", "promote", "nginx", "--from", "testing", *tree)
    plan = run("image", "gc", "--dry-run", "--newest", "1", "--days", "0", *tree)
    assert "1.22.0" in plan.out
    assert stable(run, tree) == ["1.22.1", "1.22.0"]
    done = run("image", "gc", "--newest", "1", "--days", "0", "--yes", *tree)
    assert (done.code, stable(run, tree)) == (0, ["1.22.1"])
    assert run("image", "gc", *tree).out == "No file gone.\n"  # nothing to ask about


def test_a_damaged_folder_and_a_copy_of_a_tree_are_verified(run: Any, tree: tuple[str, str]) -> None:
    copy = f"{tree[1]}/tree"
    assert run("image", "verify", "--tree", copy).code == 0
    next(Path(copy, "images").glob("*.squashfs")).write_bytes(b"x")
    for folder in (tree[1], copy):
        done = run("image", "verify", "--tree", folder)
        assert (done.code, ": error: " in done.out) == (1, True)


@pytest.mark.parametrize("command", [("list",), ("gc", "--dry-run"), ("rollback", "nginx"), ("verify",)])
def test_a_folder_without_a_registry_is_told_and_none_is_made(
    run: Any, tmp_path: Path, command: tuple[str, ...]
) -> None:
    folder = tmp_path / "none"
    done = run("image", *command, "--tree", str(folder))
    assert (done.code, "image publish METADATA ROOTFS --tree" in done.err) == (1, True)
    assert not folder.exists()


# ---- as a remote


@pytest.fixture
def secure(server: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A server that is reached by HTTPS."""
    monkeypatch.setenv("ICESHELVES_SERVER", "https://images.test:8443/iceshelves")
    server.on("GET", "/api/images/remote", REMOTE)
    return server


def certificate(monkeypatch: pytest.MonkeyPatch, *, known_to_clients: bool, known_to_us: bool = True) -> None:
    """Have the server show one that is trusted by whom."""
    clients = object()

    def shown(_place: object, trust: object) -> bytes:
        if not (known_to_clients if trust is clients else known_to_us):
            error = ssl.SSLCertVerificationError()
            error.verify_message = "self-signed certificate"
            raise error
        return b"a certificate"

    monkeypatch.setattr(remotes, "_clients_trust", lambda: clients)
    monkeypatch.setattr(remotes, "shown", shown)


def test_a_server_with_a_known_authority_needs_one_line(
    run: Any, secure: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate(monkeypatch, known_to_clients=True)
    url = "https://images.test:8443/iceshelves/registry/default"
    done = run("image", "remote-line")
    assert done.out == f"incus remote add iceshelves {url} --protocol simplestreams\n"
    done = run("image", "remote-line", "--lxd", "--name", "mine", "--channel", "testing")
    assert done.out == f"lxc remote add mine {url}/testing --protocol simplestreams\n"


@pytest.mark.parametrize(("option", "folder"), [((), "${INCUS_CONF:-"), (("--lxd",), "${LXD_CONF:-")])
def test_an_unknown_authority_is_pinned(
    run: Any, secure: Any, monkeypatch: pytest.MonkeyPatch, option: tuple[str, ...], folder: str
) -> None:
    certificate(monkeypatch, known_to_clients=False)
    done = run("image", "remote-line", *option)
    assert folder in done.out
    assert "/servercerts/iceshelves.crt\" <<'EOF'\n-----BEGIN CERTIFICATE-----\n" in done.out
    assert done.out.endswith("-----END CERTIFICATE-----\nEOF\n")


def test_a_certificate_that_nobody_vouches_for_is_not_pinned(
    run: Any, secure: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate(monkeypatch, known_to_clients=False, known_to_us=False)
    done = run("image", "remote-line")
    assert (done.code, done.out, "certificate_not_trusted" in done.err) == (1, "", True)


def test_what_a_server_says_cannot_become_a_command(
    run: Any, secure: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate(monkeypatch, known_to_clients=True)
    secure.on("GET", "/api/images/remote", {**REMOTE, "path": "/iceshelves/x;reboot"})
    assert "'https://images.test:8443/iceshelves/x;reboot'" in run("image", "remote-line").out
    assert run("image", "remote-line", "--name", "x;reboot").code == 2


def test_without_https_or_an_image_there_is_nothing_to_add(run: Any, server: Any, secure: Any) -> None:
    assert "There is stable, testing." in run("image", "remote-line", "--channel", "none").err


def test_plain_http_is_told_with_the_way_to_https(run: Any, server: Any) -> None:
    server.on("GET", "/api/images/remote", REMOTE)
    done = run("image", "remote-line")
    assert (done.code, done.out) == (1, "")
    assert "iceshelves serve --tls" in done.err
