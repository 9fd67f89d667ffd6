"""A tar reader and writer for the little that an egg needs.

The standard library's reader follows links, devices, sparse maps and global headers, and its older releases
have loops and escapes; an egg is a few plain files.  So this one knows plain files and directories, skips
extended headers that change nothing that matters, and refuses the rest.  The writer is deterministic.
Format: POSIX.1-2017, pax, "ustar Interchange Format".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from iceshelves.core.errors import InvalidInput
from iceshelves.eggs.names import check_file_name, check_size

BLOCK: Final = 512
_MAX_EXTENDED: Final = 8192
_HARMLESS: Final = frozenset(
    {"mtime", "atime", "ctime", "uid", "gid", "uname", "gname", "comment", "charset"}
)
_KINDS: Final = {
    "1": "a hard link", "2": "a symbolic link", "3": "a device", "4": "a device", "6": "a pipe",
    "S": "a sparse file", "K": "a long link", "L": "a long name",
}  # fmt: skip


def write(files: Mapping[str, bytes]) -> bytes:
    """A tar of ``files`` in order of name: mode 0644, owner 0, time 0; the same files give the same bytes."""
    parts: list[bytes] = []
    for name, content in sorted(files.items()):
        parts += [_header(check_file_name(name), len(content)), content, bytes(-len(content) % BLOCK)]
    return b"".join([*parts, bytes(2 * BLOCK)])


def _header(name: str, size: int) -> bytes:
    fields = (
        name.encode().ljust(100, b"\0"), b"0000644\0", b"0000000\0", b"0000000\0", b"%011o\0" % size,
        b"00000000000\0", b" " * 8, b"0", bytes(100), b"ustar\x0000", bytes(247),
    )  # fmt: skip
    header = b"".join(fields).ljust(BLOCK, b"\0")
    return header[:148] + b"%06o\0 " % sum(header) + header[156:]


def read(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each plain file.  Raises :class:`InvalidInput` for anything else."""
    offset = 0
    while offset + BLOCK <= len(data):
        header = data[offset : offset + BLOCK]
        if not any(header):
            return
        offset += BLOCK
        _verify(header)
        size = _octal(header[124:136])
        name = _name(header)
        kind = chr(header[156])
        if kind not in "05gx\0":
            raise _refuse(f"{name[:120]!r} is {_KINDS.get(kind, 'of an unknown kind')}.", name)
        if kind in "0\0":
            check_size(name[:120], size)
        if offset + size > len(data):
            raise _refuse(f"it ends within {name[:120]!r}.", name)
        content = data[offset : offset + size]
        offset += size + -size % BLOCK
        if kind in "gx":
            _check_extended(content)
        elif kind in "0\0" and not name.endswith("/"):
            yield check_file_name(name.removeprefix("./")), content
        elif name.rstrip("/") not in {"", "."}:
            check_file_name(name.rstrip("/").removeprefix("./"))
    raise _refuse("its end is missing.", None)


def _verify(header: bytes) -> None:
    if _octal(header[148:156]) != sum(header[:148]) + 8 * 32 + sum(header[156:]):
        raise _refuse("a header's checksum is wrong.", None)


def _octal(value: bytes) -> int:
    digits = value.strip(b" \0")
    if not digits:
        return 0
    if not all(0x30 <= digit <= 0x37 for digit in digits):
        raise _refuse("a header's number is not octal.", None)
    return int(digits, 8)


def _name(header: bytes) -> str:
    name = header[:100].split(b"\0", 1)[0]
    prefix = header[345:500].split(b"\0", 1)[0] if header[257:263] == b"ustar\0" else b""
    try:
        return (prefix + b"/" + name if prefix else name).decode()
    except UnicodeDecodeError as error:
        raise _refuse("a file's name is not UTF-8.", None) from error


def _check_extended(content: bytes) -> None:
    if len(content) > _MAX_EXTENDED:
        raise _refuse("an extended header is too long.", None)
    for line in content.rstrip(b"\n").split(b"\n"):
        keyword = line.partition(b" ")[2].partition(b"=")[0].decode(errors="replace")
        if keyword not in _HARMLESS:
            raise _refuse(f"it uses the extended header {keyword[:40]!r}.", None)


def _refuse(what: str, file: str | None) -> InvalidInput:
    return InvalidInput(
        f"The archive is refused: {what}",
        code="unsafe_archive",
        hint="Pack the egg's directory again with 'iceshelves egg pack'.",
        details={"file": file[:120]} if file else {},
    )
