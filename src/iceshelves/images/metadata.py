"""The metadata half of an image: what it is, and the templates that become files of an instance.

Incus and LXD take it as a tarball of ``metadata.yaml`` and ``templates/`` beside a root file system or disk.
Format: Incus, ``doc/reference/image_format.md`` and ``shared/api/image_metadata.go``.
"""

from __future__ import annotations

import lzma
import os
import re
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from iceshelves.core.bounded import load_yaml
from iceshelves.core.errors import InvalidInput
from iceshelves.images import tar
from iceshelves.images.tar import Member

METADATA: Final = "metadata.yaml"
TEMPLATES: Final = "templates"

_MAX_PACKED: Final = 8 * 1024 * 1024
_MAX_UNPACKED: Final = 64 * 1024 * 1024
_MAX_MEMBERS: Final = 4096
_MAX_MEMORY: Final = 128 * 1024 * 1024  # xz -9 needs 65 MiB
_PRESET: Final = 6
_ARCHITECTURE: Final = re.compile(r"[a-z0-9_]{1,32}")
_TEMPLATE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,90}")
_TIME: Final = re.compile(r"[0-9]{1,10}")
_NULLS: Final = ("", "~", "null")


@dataclass(frozen=True, slots=True)
class Template:
    """A file of an instance that is rendered from a template: ``file`` in ``templates/``.

    ``when``: at ``create``, ``copy`` or ``start``.  ``create_only``: not where the file is there already.
    """

    file: str
    when: tuple[str, ...] = ("create", "copy")
    create_only: bool = False
    properties: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ImageMetadata:
    """What an image says of itself.

    ``architecture`` is the kernel's name (``x86_64``), ``created`` and ``expires`` are seconds since 1970 (0:
    never), ``templates`` are by the absolute path of the file that each of them makes.
    """

    architecture: str
    created: int
    expires: int = 0
    properties: Mapping[str, str] = field(default_factory=dict)
    templates: Mapping[str, Template] = field(default_factory=dict)


def read_metadata(path: Path) -> ImageMetadata:
    """What the metadata tarball (``.tar.xz``) at ``path`` says; nothing is unpacked to the disk.

    Raises :class:`InvalidInput`: ``not_an_archive``, ``archive_bomb``, ``unsafe_archive`` (links, devices,
    names that lead elsewhere), ``invalid_image_metadata``, and those of YAML that is out of bounds.
    """
    files = {
        member.name: member.content
        for member in tar.read(_unpacked(path), _MAX_MEMBERS)
        if member.content is not None
    }
    text = files.get(METADATA)
    if text is None:
        raise _invalid(f"there is no {METADATA} in it")
    metadata = _parsed(text)
    for template in metadata.templates.values():
        if f"{TEMPLATES}/{template.file}" not in files:
            raise _invalid(f"the template {template.file!r} is not in it")
    return metadata


def write_metadata(path: Path, metadata: ImageMetadata, templates: Mapping[str, bytes]) -> None:
    """Write the tarball to ``path``, all or not at all; ``templates`` are the files by name.

    The same values give the same bytes: sorted, owner 0, all times ``created``.  Raises :class:`InvalidInput`
    (``invalid_image_metadata``) for what :func:`read_metadata` would not take.
    """
    missing = {template.file for template in metadata.templates.values()} - set(templates)
    if missing:
        raise _invalid(f"the template {min(missing)!r} is not in it")
    described = _described(metadata)
    text = yaml.safe_dump(described, allow_unicode=True, default_flow_style=False, width=4096).encode()
    _parsed(text)
    members = [Member(METADATA, text)]
    if templates:
        members.append(Member(TEMPLATES, None))
        for name, content in sorted(templates.items()):
            members.append(Member(f"{TEMPLATES}/{_template_name(name)}", content))
    packed = lzma.compress(tar.write(members, metadata.created), lzma.FORMAT_XZ, preset=_PRESET)
    _write(path, packed)


def _unpacked(path: Path) -> bytes:
    with path.open("rb") as stream:
        packed = stream.read(_MAX_PACKED + 1)
    if len(packed) > _MAX_PACKED:
        raise _not_an_archive(f"it is larger than {_MAX_PACKED} bytes", "not_an_archive")
    unpack = lzma.LZMADecompressor(lzma.FORMAT_XZ, _MAX_MEMORY)
    try:
        plain = unpack.decompress(packed, _MAX_UNPACKED + 1)
    except lzma.LZMAError as error:
        raise _not_an_archive("it is no tar archive that was compressed by xz", "not_an_archive") from error
    if len(plain) > _MAX_UNPACKED:
        raise _not_an_archive(f"it unpacks to more than {_MAX_UNPACKED} bytes", "archive_bomb")
    if not unpack.eof or unpack.unused_data:
        raise _not_an_archive("it is cut short, or something follows it", "not_an_archive")
    return plain


def _not_an_archive(why: str, code: str) -> InvalidInput:
    return InvalidInput(
        f"The image's metadata cannot be used: {why}.",
        code=code,
        hint="Give the .tar.xz with metadata.yaml that belongs to the image.",
    )


def _invalid(why: str) -> InvalidInput:
    return InvalidInput(
        f"The image's metadata cannot be used: {why}.",
        code="invalid_image_metadata",
        hint="Incus and LXD describe metadata.yaml under 'Image format'.",
    )


def _parsed(text: bytes) -> ImageMetadata:
    load_yaml(text, source=METADATA)  # within bounds, and no key twice
    # Hypervisors take scalars for the texts that they are: `version: 1.10` is no number.
    found = _mapping(yaml.load(text, Loader=yaml.CBaseLoader), METADATA)  # noqa: S506 - makes texts only
    architecture = found.get("architecture")
    if not isinstance(architecture, str) or not _ARCHITECTURE.fullmatch(architecture):
        raise _invalid("its architecture is not one such as x86_64")
    return ImageMetadata(
        architecture=architecture,
        created=_time(found.get("creation_date"), "creation_date"),
        expires=_time(found.get("expiry_date", "0"), "expiry_date"),
        properties=_texts(found.get("properties"), "properties"),
        templates={
            _guest_path(path): _template(path, each)
            for path, each in _mapping(found.get("templates"), "templates").items()
        },
    )


def _template(path: str, value: Any) -> Template:
    found = _mapping(value, f"templates: {path}")
    when = found.get("when") or []
    create_only = found.get("create_only", "false")
    if not isinstance(when, list) or not set(map(str, when)) <= {"create", "copy", "start"}:
        raise _invalid(f"the template for {path} is for other times than create, copy and start")
    if create_only not in {"true", "false"}:
        raise _invalid(f"create_only of the template for {path} is not true or false")
    properties = _texts(found.get("properties"), f"properties of the template for {path}")
    return Template(_template_name(found.get("template")), tuple(when), create_only == "true", properties)


def _template_name(name: Any) -> str:
    if not isinstance(name, str) or not _TEMPLATE.fullmatch(name):
        raise _invalid(f"{str(name)[:80]!r} cannot be a template's file name")
    return name


def _guest_path(path: str) -> str:
    if not path.startswith("/") or ".." in path.split("/") or not path.isprintable():
        raise _invalid(f"{path[:80]!r} is no absolute path for a template")
    return path


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if value is None or value in _NULLS:
        return {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise _invalid(f"its {what} is not a mapping")
    return value


def _texts(value: Any, what: str) -> dict[str, str]:
    found = _mapping(value, what)
    if not all(isinstance(each, str) for each in found.values()):
        raise _invalid(f"its {what} hold more than texts")
    return found


def _time(value: Any, what: str) -> int:
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        raise _invalid(f"its {what} is not a number of seconds since 1970")
    return int(value)


def _described(metadata: ImageMetadata) -> dict[str, Any]:
    """What metadata.yaml holds; what is at its default is left out."""
    described: dict[str, Any] = {
        "architecture": metadata.architecture,
        "creation_date": metadata.created,
        "properties": dict(metadata.properties),
    }
    if metadata.expires:
        described["expiry_date"] = metadata.expires
    if metadata.templates:
        described["templates"] = {
            path: _described_template(each) for path, each in metadata.templates.items()
        }
    return described


def _described_template(template: Template) -> dict[str, Any]:
    described: dict[str, Any] = {"template": template.file, "when": list(template.when)}
    if template.create_only:
        described["create_only"] = True
    if template.properties:
        described["properties"] = dict(template.properties)
    return described


def _write(path: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    draft = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        draft.chmod(0o644)
        draft.rename(path)
    except BaseException:
        with suppress(FileNotFoundError):
            draft.unlink()
        raise
