"""The metadata tarball: the same bytes for the same values, and nothing hostile gets in."""

from __future__ import annotations

import io
import lzma
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iceshelves.core.errors import InvalidInput
from iceshelves.images import tar
from iceshelves.images.metadata import ImageMetadata, Template, read_metadata, write_metadata

GIVEN = ImageMetadata(
    architecture="x86_64",
    created=1763600000,
    expires=1863600000,
    properties={"os": "Debian", "release": "12", "version": "1.10", "description": "Größe: ja", "serial": ""},
    templates={
        "/etc/hostname": Template("hostname.tpl"),
        "/etc/hosts": Template("hosts.tpl", ("start",), create_only=True, properties={"domain": "lan"}),
    },
)
FILES = {"hostname.tpl": b"{{ container.name }}\n", "hosts.tpl": b"", "spare.tpl": b"x" * 1000}
YAML = b"architecture: x86_64\ncreation_date: 5\n"


def add(target: tarfile.TarFile, name: str, content: bytes = b"", **fields: Any) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    target.addfile(info, io.BytesIO(content))


def tarball(
    path: Path,
    *changes: Callable[[tarfile.TarFile], None],
    yaml: bytes = YAML,
    form: int = tarfile.GNU_FORMAT,
) -> Path:
    """A metadata tarball by the standard library, with what ``changes`` add."""
    with tarfile.open(path, "w:xz", format=form, preset=0) as target:
        add(target, "metadata.yaml", yaml)
        for change in changes:
            change(target)
    return path


def refused(path: Path) -> str:
    with pytest.raises(InvalidInput) as caught:
        read_metadata(path)
    assert caught.value.hint
    return caught.value.code


def test_written_and_read_back(tmp_path: Path) -> None:
    write_metadata(tmp_path / "a.tar.xz", GIVEN, FILES)
    assert read_metadata(tmp_path / "a.tar.xz") == GIVEN
    with tarfile.open(tmp_path / "a.tar.xz") as found:
        assert found.getnames() == ["metadata.yaml", "templates", *(f"templates/{name}" for name in FILES)]
        assert {(each.mtime, each.uid, each.gid) for each in found} == {(1763600000, 0, 0)}
        hostname = found.extractfile("templates/hostname.tpl")
        assert hostname is not None
        assert hostname.read() == FILES["hostname.tpl"]


def test_the_same_values_give_the_same_bytes(tmp_path: Path) -> None:
    write_metadata(tmp_path / "a", GIVEN, FILES)
    reordered = ImageMetadata(
        GIVEN.architecture,
        GIVEN.created,
        GIVEN.expires,
        dict(reversed(GIVEN.properties.items())),
        dict(reversed(GIVEN.templates.items())),
    )
    write_metadata(tmp_path / "b", reordered, dict(reversed(FILES.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=20),
        st.text(st.characters(codec="utf-8", exclude_categories=("C",)), max_size=40),
        max_size=6,
    ).filter(lambda properties: "<<" not in properties)
)
def test_any_properties(tmp_path_factory: pytest.TempPathFactory, properties: dict[str, str]) -> None:
    path = tmp_path_factory.getbasetemp() / "properties.tar.xz"
    metadata = ImageMetadata("aarch64", 1, properties=properties)
    write_metadata(path, metadata, {})
    assert read_metadata(path) == metadata


@pytest.mark.parametrize(
    "metadata",
    [
        ImageMetadata("x86 64", 1),
        ImageMetadata("x86_64", -1),
        ImageMetadata("x86_64", 1, expires=10**11),
        ImageMetadata("x86_64", 1, templates={"etc/hosts": Template("hosts.tpl")}),
        ImageMetadata("x86_64", 1, templates={"/etc/../hosts": Template("hosts.tpl")}),
        ImageMetadata("x86_64", 1, templates={"/etc/hosts": Template("../hosts.tpl")}),
        ImageMetadata("x86_64", 1, templates={"/etc/hosts": Template("none.tpl")}),
        ImageMetadata("x86_64", 1, templates={"/etc/hosts": Template("hosts.tpl", ("never",))}),
    ],
)
def test_what_would_not_be_read_is_not_written(metadata: ImageMetadata, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        write_metadata(tmp_path / "a", metadata, FILES)
    assert caught.value.code == "invalid_image_metadata"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tarballs_by_others(form: int, tmp_path: Path) -> None:
    """As GNU tar and distrobuilder pack: a folder first, dots before names, long names, plain numbers."""
    long = "templates/" + "y" * 120 if form != tarfile.USTAR_FORMAT else "templates/y"
    path = tmp_path / "meta.tar.xz"
    with tarfile.open(path, "w:xz", format=form, preset=0) as target:
        add(target, "./", type=tarfile.DIRTYPE)
        add(target, "./templates", type=tarfile.DIRTYPE)
        add(target, long, b"never asked for")
        add(
            target,
            "./templates/hosts.tpl",
            b"x",
            mtime=5.5 if form == tarfile.PAX_FORMAT else 5,
            uname="root",
        )
        text = YAML + b"expiry_date: 9\nproperties: {release: 1.10, built: 2024-01-02, on: yes, none: ~}\n"
        text += (
            b"templates: {/etc/hosts: {template: hosts.tpl, when: [create], create_only: true, uid: '0'}}\n"
        )
        add(target, "./metadata.yaml", text)
    assert read_metadata(path) == ImageMetadata(
        "x86_64", 5, 9,
        {"release": "1.10", "built": "2024-01-02", "on": "yes", "none": "~"},
        {"/etc/hosts": Template("hosts.tpl", ("create",), create_only=True)},
    )  # fmt: skip


def linked(kind: bytes) -> Callable[[tarfile.TarFile], None]:
    return lambda target: add(target, "templates/x", type=kind, linkname="/etc/passwd")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (linked(tarfile.SYMTYPE), "unsafe_archive"),
        (linked(tarfile.LNKTYPE), "unsafe_archive"),
        (linked(tarfile.CHRTYPE), "unsafe_archive"),
        (linked(tarfile.BLKTYPE), "unsafe_archive"),
        (linked(tarfile.FIFOTYPE), "unsafe_archive"),
        (linked(tarfile.GNUTYPE_SPARSE), "unsafe_archive"),
        (lambda target: add(target, "../outside"), "unsafe_archive"),
        (lambda target: add(target, "templates/../../outside"), "unsafe_archive"),
        (lambda target: add(target, "/etc/cron.d/x"), "unsafe_archive"),
        (lambda target: add(target, "a\\b"), "unsafe_archive"),
        (lambda target: add(target, "a\nb"), "unsafe_archive"),
        (lambda target: add(target, "a" * 256), "unsafe_archive"),
        (lambda target: add(target, "./metadata.yaml", YAML), "unsafe_archive"),
        (lambda target: add(target, "a", pax_headers={"GNU.sparse.major": "1"}), "unsafe_archive"),
        (lambda target: [add(target, f"f{number}") for number in range(4096)], "unsafe_archive"),
        (lambda target: add(target, "big", bytes(64 * 1024 * 1024)), "archive_bomb"),
    ],
)  # fmt: skip
def test_hostile_members(change: Callable[[tarfile.TarFile], None], code: str, tmp_path: Path) -> None:
    assert refused(tarball(tmp_path / "meta.tar.xz", change, form=tarfile.PAX_FORMAT)) == code


BOMB = b"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n"


@pytest.mark.parametrize(
    ("yaml", "code"),
    [
        (b"", "invalid_image_metadata"),
        (b"- a list\n", "invalid_image_metadata"),
        (b"architecture: x86_64\n", "invalid_image_metadata"),
        (b"creation_date: 5\n", "invalid_image_metadata"),
        (b"architecture: ../x\ncreation_date: 5\n", "invalid_image_metadata"),
        (b"architecture: x86_64\ncreation_date: 2024-01-01\n", "invalid_image_metadata"),
        (YAML + b"properties: [a]\n", "invalid_image_metadata"),
        (YAML + b"properties: {a: {b: c}}\n", "invalid_image_metadata"),
        (YAML + b"templates: {/etc/x: {template: ../x, when: [create]}}\n", "invalid_image_metadata"),
        (YAML + b"templates: {/etc/x: {template: missing.tpl}}\n", "invalid_image_metadata"),
        (YAML + b"templates: {/etc/x: {template: x, create_only: perhaps}}\n", "invalid_image_metadata"),
        (YAML + b"creation_date: 6\n", "duplicate_key"),
        (YAML + b"a: [\n", "yaml_syntax"),
        (YAML + b"a: !!python/object/apply:os.system [id]\n", "yaml_syntax"),
        (YAML + BOMB + b"d: [" + b"*c," * 100 + b"]\n", "alias_bomb"),
        (YAML + b"[" * 100 + b"]" * 100, "yaml_syntax"),
        (YAML + b"a: " + b"x" * 1024 * 1024, "too_large"),
        (YAML + b"a: \xff\n", "not_utf8"),
    ],
)
def test_hostile_yaml(yaml: bytes, code: str, tmp_path: Path) -> None:
    assert refused(tarball(tmp_path / "meta.tar.xz", yaml=yaml)) == code


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"PK\x03\x04" + bytes(100),
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: data + b"x",
        lambda data: data + data,
        lambda data: data[:60] + bytes(8) + data[68:],
        lambda data: data + bytes(8 * 1024 * 1024),
    ],
)
def test_what_is_no_archive(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = tarball(tmp_path / "meta.tar.xz")
    path.write_bytes(damage(path.read_bytes()))
    assert refused(path) == "not_an_archive"


def test_a_dictionary_larger_than_the_machine(tmp_path: Path) -> None:
    """Unpacking takes as much memory as the dictionary has, so a header could ask for gigabytes."""
    packed = bytearray(tarball(tmp_path / "meta.tar.xz").read_bytes())
    # xz file format 1.2.1, section 3.1: after the stream's header size, flags, filter, length, dictionary
    header = packed[12 : 12 + 4 * (packed[12] + 1)]
    assert header[2:4] == b"\x21\x01"
    header[4] = 39  # 3 GiB
    header[-4:] = zlib.crc32(header[:-4]).to_bytes(4, "little")
    packed[12 : 12 + len(header)] = header
    (tmp_path / "meta.tar.xz").write_bytes(packed)
    assert refused(tmp_path / "meta.tar.xz") == "not_an_archive"


def test_a_tar_without_an_end(tmp_path: Path) -> None:
    plain = tar.write([tar.Member("metadata.yaml", YAML)], 0)
    path = tmp_path / "meta.tar.xz"
    for cut in (0, 500, 512, 700, 1024):
        path.write_bytes(lzma.compress(plain[:cut], preset=0))
        assert refused(path) == "unsafe_archive"


def test_headers_with_tricks(tmp_path: Path) -> None:
    plain = bytearray(tar.write([tar.Member("metadata.yaml", YAML)], 0))
    path = tmp_path / "meta.tar.xz"

    def with_field(at: int, value: bytes) -> bytes:
        changed = bytearray(plain)
        changed[at : at + len(value)] = value
        changed[148:156] = b" " * 8
        changed[148:156] = b"%06o\0 " % sum(changed[:512])
        return bytes(changed)

    for at, value in [(124, b"77777777777"), (124, b"-0000000001"), (124, b"\x80" + bytes(11)), (0, b"\xff")]:
        path.write_bytes(lzma.compress(with_field(at, value), preset=0))
        assert refused(path) == "unsafe_archive"
    plain[0:1] = b"n"  # and the checksum is left as it was
    path.write_bytes(lzma.compress(bytes(plain), preset=0))
    assert refused(path) == "unsafe_archive"
