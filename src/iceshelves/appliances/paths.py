"""Paths that a recipe gives, in the image and in its own folder: data from outside, hence judged first."""

from __future__ import annotations

import re
from typing import Final

MAX_NAME_BYTES: Final = 255
MAX_DEPTH: Final = 16
# What is mounted over, or emptied, when an instance starts.
_NOT_KEPT: Final = re.compile(r"/(?:dev|proc|run|sys|tmp|var/run|var/lock)(?:/|\Z)")
# Debian's and Ubuntu's links into /usr.  A file below one of them could replace the link.
_LINKS: Final = re.compile(r"/(?:bin|sbin|lib|lib32|lib64|libx32)(?:/|\Z)")
# What the guest program owns: see `guest`.
_OWN: Final = re.compile(r"/(?:usr/lib|usr/share|etc|var/lib)/appliance(?:/|\Z)")


def wrong_with_name(name: str) -> str | None:
    """Why ``name`` cannot be a file of the recipe's folder; None when it can.  It is relative and POSIX."""
    if name.startswith("/"):
        return "is absolute"
    return _wrong_with_parts(name.split("/"), name)


def wrong_with_path(path: str) -> str | None:
    """Why ``path`` cannot be a file or folder that a recipe puts into the image; None when it can."""
    if not path.startswith("/"):
        return "is not absolute"
    reason = _wrong_with_parts(path[1:].split("/"), path)
    if reason:
        return reason
    if _NOT_KEPT.match(path):
        return "is not kept in an image: it is mounted or emptied at each boot"
    if _LINKS.match(path):
        return "leads through a link of the distribution; write it with /usr in front"
    if _OWN.match(path):
        return "belongs to what every appliance has"
    return None


def _wrong_with_parts(parts: list[str], whole: str) -> str | None:
    try:
        encoded = whole.encode()
    except UnicodeEncodeError:
        return "is not UTF-8"
    if ".." in parts:
        return "climbs out by '..'"
    if "" in parts or "." in parts:
        return "has an empty part"
    if "\\" in whole or not whole.isprintable():
        return "has a backslash or an unprintable character"
    if len(encoded) > MAX_NAME_BYTES:
        return f"is longer than {MAX_NAME_BYTES} bytes"
    if len(parts) > MAX_DEPTH:
        return f"is deeper than {MAX_DEPTH} folders"
    return None
