"""Eggs on disk: byte for byte, and never a byte from outside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from iceshelves.core.errors import Conflict, InvalidInput, NotFound
from iceshelves.eggs import Egg, load, pack, read_directory, write_directory

ORIGINAL = {
    "metadata.json": (
        '{"name":"web","version":"1.2.0","display_name":"Wéb — 日本語 🎉","category":"webserver",\r\n'
        '  "egg_type": "lxd-container", "tags": ["a"], "base_image": "ubuntu/24.04",'
        ' "x-own": {"kept": [1, null]},'
        ' "requirements": {"min_memory_mb": 512, "min_disk_gb": 5, "min_cores": 1},'
        ' "ports": {"suggested": [80, 443]}, "created": "2025-10-07T00:00:00Z"}'
    ).encode(),
    "cloud-init.yaml": "#cloud-config\r\n# größer, 日本語\r\nruncmd:\r\n  - $(date) $1 {{ no }}".encode(),
    "files/deep/ü.bin": bytes(range(256)),
}


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def test_an_egg_round_trips_byte_for_byte(tmp_path: Path) -> None:
    egg = read_directory(write(tmp_path / "web", ORIGINAL))
    assert egg.files == ORIGINAL
    assert egg.metadata.display_name == "Wéb — 日本語 🎉"
    assert egg.metadata.raw["x-own"] == {"kept": [1, None]}
    assert egg.metadata.ports == (80, 443)
    write_directory(egg, tmp_path / "out" / "copy")
    assert read_directory(tmp_path / "out" / "copy").digest == egg.digest
    (tmp_path / "one.egg").write_bytes(pack(egg))
    assert load(tmp_path / "one.egg").digest == egg.digest


def test_the_least_metadata_loads_and_the_directory_names_the_egg(tmp_path: Path) -> None:
    least = b'{"version": "0.1.0", "template": "web", "created": "2025-10-07T00:00:00Z", "variables": {}}'
    egg = read_directory(write(tmp_path / "tiny", {**ORIGINAL, "metadata.json": least}))
    assert (egg.name, egg.metadata.display_name, egg.metadata.egg_type) == ("tiny", "tiny", "lxd-container")
    assert (egg.metadata.base_image, egg.metadata.rendering, egg.metadata.merge) == (None, "none", "replace")


def test_links_within_the_egg_are_files_and_links_out_of_it_are_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "web", ORIGINAL)
    (root / "same").symlink_to("files/../metadata.json")
    assert read_directory(root).files["same"] == ORIGINAL["metadata.json"]
    (tmp_path / "secret").write_text("secret")
    for target in ("../secret", str(tmp_path / "secret"), "files", "missing", "/etc/passwd"):
        (root / "bad").unlink(missing_ok=True)
        (root / "bad").symlink_to(target)
        with pytest.raises(InvalidInput, match="'bad' is a link") as caught:
            read_directory(root)
        assert caught.value.details["file"] == "bad"


def test_a_linked_directory_is_not_entered(tmp_path: Path) -> None:
    root = write(tmp_path / "web", ORIGINAL)
    write(tmp_path / "other", {"x": b"secret"})
    (root / "dir").symlink_to(tmp_path / "other")
    with pytest.raises(InvalidInput):
        read_directory(root)


def test_pipes_and_crowds_are_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "web", ORIGINAL)
    os.mkfifo(root / "pipe")
    with pytest.raises(InvalidInput) as caught:
        read_directory(root)
    assert caught.value.code == "unsafe_file"
    (root / "pipe").unlink()
    write(root, {f"f{n}": b"" for n in range(100)})
    with pytest.raises(InvalidInput) as caught:
        read_directory(root)
    assert caught.value.code == "too_many_files"


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    root = write(tmp_path / "web", ORIGINAL)
    with (root / "huge").open("wb") as stream:
        stream.truncate(100 * 1024**3)  # sparse: reading it would not end well
    with pytest.raises(InvalidInput) as caught:
        read_directory(root)
    assert (caught.value.code, caught.value.details["file"]) == ("file_too_large", "huge")
    with pytest.raises(InvalidInput) as caught:
        load(root / "huge")
    assert caught.value.code == "egg_too_large"


def test_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        read_directory(tmp_path / "nothing")
    with pytest.raises(InvalidInput) as caught:
        read_directory(write(tmp_path / "half", {"metadata.json": ORIGINAL["metadata.json"]}))
    assert (caught.value.code, caught.value.details["file"]) == ("not_an_egg", "cloud-init.yaml")


def test_writing_never_replaces_and_leaves_nothing_behind(tmp_path: Path, make_egg: object) -> None:
    egg = read_directory(write(tmp_path / "web", ORIGINAL))
    with pytest.raises(Conflict):
        write_directory(egg, tmp_path / "web")
    escaping = Egg(egg.metadata, {**egg.files, "../outside": b"x"})
    with pytest.raises(InvalidInput):
        write_directory(escaping, tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["web"]
