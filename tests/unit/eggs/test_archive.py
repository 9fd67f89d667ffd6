"""One-file eggs: exact both ways, and nothing hostile gets in."""

from __future__ import annotations

import contextlib
import gzip
import io
import tarfile
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iceshelves.core.errors import InvalidInput
from iceshelves.eggs import egg_from_files, pack, tar, unpack

REQUIRED = {"metadata.json": b'{"name": "e", "version": "1.0.0"}', "cloud-init.yaml": b"#cloud-config\n"}
names = st.text(st.characters(codec="utf-8", categories=("L", "N")), min_size=1, max_size=8)


def archive(change: Callable[[tarfile.TarFile], None], form: int = tarfile.USTAR_FORMAT) -> bytes:
    """A gzipped tar by the standard library: a whole egg, and what ``change`` adds."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=form) as target:
        for name, content in REQUIRED.items():
            add(target, name, content)
        change(target)
    return buffer.getvalue()


def add(target: tarfile.TarFile, name: str, content: bytes = b"x", **fields: Any) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    target.addfile(info, io.BytesIO(content))


def link(target: tarfile.TarFile, kind: bytes, name: str = "link") -> None:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    target.addfile(info)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda t: add(t, "../outside"), "unsafe_file_name"),
        (lambda t: add(t, "a/../../outside"), "unsafe_file_name"),
        (lambda t: add(t, "/etc/cron.d/x"), "unsafe_file_name"),
        (lambda t: add(t, "a//b"), "unsafe_file_name"),
        (lambda t: add(t, "a\\b"), "unsafe_file_name"),
        (lambda t: add(t, "a\nb"), "unsafe_file_name"),
        (lambda t: add(t, "b/" * 9 + "c"), "unsafe_file_name"),
        (lambda t: link(t, tarfile.SYMTYPE), "unsafe_archive"),
        (lambda t: link(t, tarfile.LNKTYPE), "unsafe_archive"),
        (lambda t: link(t, tarfile.CHRTYPE), "unsafe_archive"),
        (lambda t: link(t, tarfile.BLKTYPE), "unsafe_archive"),
        (lambda t: link(t, tarfile.FIFOTYPE), "unsafe_archive"),
        (lambda t: add(t, "cloud-init.yaml", b"#cloud-config\nruncmd: [evil]\n"), "unsafe_archive"),
        (lambda t: add(t, "./cloud-init.yaml", b"again"), "unsafe_archive"),
        (lambda t: [add(t, f"f{n}") for n in range(100)], "too_many_files"),
        (lambda t: add(t, "big", bytes(4 * 1024 * 1024 + 1)), "file_too_large"),
        (lambda t: [add(t, f"f{n}", bytes(4 * 1024 * 1024)) for n in range(4)], "egg_too_large"),
    ],
)
def test_hostile_archives(change: Callable[[tarfile.TarFile], None], code: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        unpack(archive(change))
    assert caught.value.code == code
    assert caught.value.hint


@pytest.mark.parametrize(
    "pax", [{"path": "../x"}, {"size": "0"}, {"GNU.sparse.map": "0,1"}, {"linkpath": "/x"}]
)
def test_extended_headers_that_change_meaning(pax: dict[str, str]) -> None:
    with pytest.raises(InvalidInput) as caught:
        unpack(archive(lambda t: add(t, "x", pax_headers=pax), tarfile.PAX_FORMAT))
    assert caught.value.code == "unsafe_archive"


def test_bombs_are_not_unpacked() -> None:
    bomb = gzip.compress(bytes(64 * 1024 * 1024), compresslevel=1)
    with pytest.raises(InvalidInput) as caught:
        unpack(bomb)
    assert caught.value.code == "archive_bomb"


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_archives_of_other_tools_are_welcome(form: int) -> None:
    def change(target: tarfile.TarFile) -> None:
        add(target, "files", b"", type=tarfile.DIRTYPE)
        add(target, "files/page", "über".encode(), mtime=1.5 if form == tarfile.PAX_FORMAT else 1)

    assert unpack(archive(change, form)).files == {**REQUIRED, "files/page": "über".encode()}


def test_one_top_directory_is_dropped() -> None:
    packed = gzip.compress(tar.write({f"web/{name}": content for name, content in REQUIRED.items()}))
    assert unpack(packed).files == REQUIRED


def test_the_standard_library_reads_what_we_write() -> None:
    files = {**REQUIRED, "data/größe.txt": b"x" * 513}
    with tarfile.open(fileobj=io.BytesIO(pack(egg_from_files(files)))) as source:
        found = {member.name: source.extractfile(member).read() for member in source}  # type: ignore[union-attr]
    assert found == files


@given(st.dictionaries(names, st.binary(max_size=2000), max_size=6))
def test_pack_and_unpack_are_exact(more: dict[str, bytes]) -> None:
    egg = egg_from_files({**more, **REQUIRED})
    packed = pack(egg)
    again = unpack(packed)
    assert again.files == egg.files
    assert again.digest == egg.digest
    assert pack(again) == packed


@given(st.data())
def test_damage_is_refused_or_harmless(data: st.DataObject) -> None:
    plain = bytearray(tar.write(REQUIRED))
    for _ in range(data.draw(st.integers(1, 4))):
        plain[data.draw(st.integers(0, len(plain) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(plain)))
    with contextlib.suppress(InvalidInput):  # and nothing else
        assert unpack(gzip.compress(bytes(plain[:cut]), compresslevel=0)).name


@given(st.binary(max_size=300))
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        unpack(data)


def test_the_digest_tells_files_apart_and_nothing_else() -> None:
    egg = egg_from_files({**REQUIRED, "a": b"bc"})
    assert egg.digest == egg_from_files(dict(reversed([*REQUIRED.items(), ("a", b"bc")]))).digest
    assert egg.digest != egg_from_files({**REQUIRED, "ab": b"c"}).digest
    assert egg.digest.startswith("sha256:")
