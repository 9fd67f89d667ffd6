"""File names of an egg are data from outside: relative, plain, short, and nothing that a path could abuse."""

from __future__ import annotations

from typing import Final

from iceshelves.core.errors import InvalidInput

MAX_FILES: Final = 100
MAX_FILE_BYTES: Final = 4 * 1024 * 1024
MAX_TOTAL_BYTES: Final = 16 * 1024 * 1024
MAX_NAME_BYTES: Final = 100  # what a plain tar header holds
MAX_DEPTH: Final = 8


def check_file_name(name: str) -> str:
    """``name`` if it is a safe relative POSIX name.  Raises :class:`InvalidInput` (``unsafe_file_name``)."""
    reason = _what_is_wrong(name)
    if reason:
        shown = name.encode("unicode_escape", "replace").decode()[:120]
        raise InvalidInput(
            f"The file name '{shown}' {reason}.",
            code="unsafe_file_name",
            hint="Files of an egg have short relative names below the egg's own directory.",
            details={"file": shown},
        )
    return name


def _what_is_wrong(name: str) -> str | None:
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        return "is not UTF-8"
    parts = name.split("/")
    if name.startswith("/"):
        return "is absolute"
    if ".." in parts:
        return "leaves the egg"
    if not name or "" in parts or "." in parts:
        return "has an empty part"
    if "\\" in name or not name.isprintable():
        return "has a backslash or an unprintable character"
    if len(encoded) > MAX_NAME_BYTES:
        return f"is longer than {MAX_NAME_BYTES} bytes"
    if len(parts) > MAX_DEPTH:
        return f"is deeper than {MAX_DEPTH} directories"
    return None


def check_size(name: str, size: int) -> int:
    """``size`` in bytes, if one file of an egg may have it.  Raises :class:`InvalidInput`."""
    if size > MAX_FILE_BYTES:
        raise InvalidInput(
            f"{name} has {size} bytes; a file of an egg may have {MAX_FILE_BYTES}.",
            code="file_too_large",
            hint="Let the instance fetch large files itself, or build them into an image.",
            details={"file": name},
        )
    return size


def check_totals(files: int, total: int) -> None:
    """Refuse more files or bytes than an egg may have.  Raises :class:`InvalidInput`."""
    if files > MAX_FILES:
        raise InvalidInput(
            f"There are more than {MAX_FILES} files; an egg has a handful.",
            code="too_many_files",
            hint="Is this the right directory or archive?",
        )
    if total > MAX_TOTAL_BYTES:
        raise InvalidInput(
            f"The files are larger than {MAX_TOTAL_BYTES} bytes together.",
            code="egg_too_large",
            hint="Let the instance fetch large files itself, or build them into an image.",
        )
