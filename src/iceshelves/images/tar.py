"""A tar reader and writer for archives of a few plain files and folders, in memory.

The standard library's reader follows links, sparse maps and global headers, and older releases of it loop or
escape.  This one knows files and folders, long names, and extended headers that change nothing that matters;
it refuses the rest.  Format: POSIX.1-2017, pax, "ustar Interchange Format"; GNU tar's ``L`` for long names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from iceshelves.core.errors import InvalidInput

BLOCK: Final = 512
_RECORD: Final = 20 * BLOCK  # what archives are padded to
_MAX_EXTENDED: Final = 8192
_MAX_NAME: Final = 255
_MAX_PLAIN_NAME: Final = 100
_HARMLESS: Final = frozenset(
    {"mtime", "atime", "ctime", "uid", "gid", "uname", "gname", "comment", "charset", "path"}
)
_KINDS: Final = {
    "1": "a hard link", "2": "a symbolic link", "3": "a device", "4": "a device", "6": "a pipe",
    "S": "a sparse file", "K": "a long link",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Member:
    """A file with its content, or a folder without.  ``name`` is relative and has no ``.`` or ``..``."""

    name: str
    content: bytes | None


def write(members: Iterable[Member], time: int) -> bytes:
    """A tar of ``members`` in this order: owner 0, modes 0644 and 0755, ``time`` in seconds since 1970.

    Raises :class:`InvalidInput` for names that :func:`read` would not take, or longer than 100 bytes.
    """
    parts: list[bytes] = []
    for member in members:
        name = _checked(member.name)
        if member.content is None:
            parts.append(_header(f"{name}/", 0, time, b"5", 0o755))
        else:
            parts += [_header(name, len(member.content), time, b"0", 0o644), member.content]
            parts.append(bytes(-len(member.content) % BLOCK))
    data = b"".join([*parts, bytes(2 * BLOCK)])
    return data + bytes(-len(data) % _RECORD)


def _header(name: str, size: int, time: int, kind: bytes, mode: int) -> bytes:
    if len(name.encode()) > _MAX_PLAIN_NAME:
        raise _refuse(f"the name {name[:120]!r} has more than {_MAX_PLAIN_NAME} bytes")
    fields = (
        name.encode().ljust(100, b"\0"), b"%07o\0" % mode, b"0000000\0", b"0000000\0", b"%011o\0" % size,
        b"%011o\0" % time, b" " * 8, kind, bytes(100), b"ustar\x0000", bytes(247),
    )  # fmt: skip
    header = b"".join(fields).ljust(BLOCK, b"\0")
    return header[:148] + b"%06o\0 " % sum(header) + header[156:]


def read(data: bytes, max_members: int) -> Iterator[Member]:
    """Each member of ``data`` in order.

    Raises :class:`InvalidInput` (``unsafe_archive``) for anything but files and folders, for names that lead
    elsewhere or come twice, and for more than ``max_members``.
    """
    seen: set[str] = set()
    long_name: str | None = None
    for count, (header, content) in enumerate(_records(data)):
        if count >= 2 * max_members or len(seen) >= max_members:
            raise _refuse(f"it holds more than {max_members} files and folders")
        kind = chr(header[156])
        if kind in "gxL":
            long_name = _extended(kind, content) or long_name
            continue
        name = long_name or _name(header)
        long_name = None
        if kind not in "05\0":
            raise _refuse(f"{name[:120]!r} is {_KINDS.get(kind, 'of an unknown kind')}")
        is_folder = kind == "5" or name.endswith("/")
        name = name.removeprefix("./").rstrip("/")
        if is_folder and name in {"", "."}:
            continue
        if _checked(name) in seen:
            raise _refuse(f"it holds {name[:120]!r} twice")
        seen.add(name)
        yield Member(name, None if is_folder else content)


def _records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each header and what follows it, up to the block of zeros that ends an archive."""
    offset = 0
    while offset + BLOCK <= len(data):
        header = data[offset : offset + BLOCK]
        if not any(header):
            return
        if _octal(header[148:156]) != sum(header[:148]) + 8 * 32 + sum(header[156:]):
            raise _refuse("a header's checksum is wrong")
        size = _octal(header[124:136])
        offset += BLOCK
        if offset + size > len(data):
            raise _refuse("it ends within a file")
        yield header, data[offset : offset + size]
        offset += size + -size % BLOCK
    raise _refuse("its end is missing")


def _octal(value: bytes) -> int:
    digits = value.strip(b" \0")
    if not digits:
        return 0
    if not all(0x30 <= digit <= 0x37 for digit in digits):
        raise _refuse("a header's number is not octal")
    return int(digits, 8)


def _name(header: bytes) -> str:
    name = header[:100].split(b"\0", 1)[0]
    prefix = header[345:500].split(b"\0", 1)[0] if header[257:263] == b"ustar\0" else b""
    return _decoded(prefix + b"/" + name if prefix else name)


def _extended(kind: str, content: bytes) -> str | None:
    """The name that an extended header gives the next member, if it gives one."""
    if len(content) > _MAX_EXTENDED:
        raise _refuse("an extended header is too long")
    if kind == "L":
        return _decoded(content.rstrip(b"\0"))
    name = None
    for line in content.rstrip(b"\n").split(b"\n"):
        keyword, _, value = line.partition(b" ")[2].partition(b"=")
        shown = keyword[:40].decode(errors="replace")
        if shown not in _HARMLESS or (kind == "g" and keyword == b"path"):
            raise _refuse(f"it uses the extended header {shown!r}")
        if keyword == b"path":
            name = _decoded(value)
    return name


def _decoded(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError as error:
        raise _refuse("a file's name is not UTF-8") from error


def _checked(name: str) -> str:
    parts = name.split("/")
    if not all(part not in {"", ".", ".."} for part in parts):
        raise _refuse(f"the name {name[:120]!r} leads elsewhere")
    if "\\" in name or not name.isprintable() or len(name.encode()) > _MAX_NAME:
        raise _refuse(f"the name {name[:120]!a} is too long or cannot be printed")
    return name


def _refuse(what: str) -> InvalidInput:
    return InvalidInput(
        f"The archive is refused: {what}.",
        code="unsafe_archive",
        hint="Only plain files and folders with short relative names are taken.",
    )
