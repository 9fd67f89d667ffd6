"""Text that came from a guest or a hypervisor, made fit to be kept."""

from __future__ import annotations


def storable(text: str) -> str:
    """``text`` as every database takes it: without NUL (PostgreSQL) and without lone surrogates (UTF-8)."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()
