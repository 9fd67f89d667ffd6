"""Judging user-data as cloud-init will read it: what keeps it from working, and what is probably a slip."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Any, Final

from iceshelves.core.bounded import Document, KeyPath, load_yaml_with_lines
from iceshelves.core.errors import InvalidInput
from iceshelves.core.finding import Finding, Level, from_error
from iceshelves.eggs.cloudconfig import HEADER, kind_of

COMMAND_LISTS: Final = ("bootcmd", "runcmd")
_KEY: Final = re.compile(
    r"(?P<type>(?:ssh|ecdsa|sk-ssh|sk-ecdsa)-[a-z0-9@.-]{1,64})\s+(?P<blob>[A-Za-z0-9+/]+={0,3})(?:\s|$)"
)
_TEMPLATE_WORD: Final = re.compile(
    r"\{\{-?\s*[A-Za-z_][\w.]*\s*(?:\|[^}\n]{0,200})?-?\}\}|\{%-?\s*(?:if|for|set)\b"
)


def judge(text: str, file: str) -> tuple[Document | None, list[Finding]]:
    """``text`` parsed, and what is wrong with it; None where it is not cloud-config or does not parse."""
    kind = kind_of(text)
    if kind == "other":
        return None, []
    if kind == "template" and not _parses(text, file):
        return None, [
            Finding(
                "hint",
                "rendered_in_guest",
                "cloud-init renders this in the guest, so it is not checked here.",
                file,
            )
        ]
    try:
        document = load_yaml_with_lines(text, source=file)
    except InvalidInput as error:
        return None, [from_error(error, file)]
    findings = list(_findings(document, file, text))
    usable = isinstance(document.value, dict) and kind != "unknown"
    return (document if usable else None), findings


def judge_style(document: Document, file: str, invented: str | None = None) -> list[Finding]:
    """Slips in cloud-config that works: sample keys, fixed host names, passwords for all to read.

    A text that holds ``invented`` stands for a value that is not known yet, and is left alone.
    """
    return [
        finding
        for path, finding in _slips(document, file)
        if invented is None or invented not in str(_get(document.value, path))
    ]


def looks_like_template(text: str) -> bool:
    """Whether ``text`` seems to hold template expressions and not just braces."""
    return _TEMPLATE_WORD.search(text) is not None


def bad_commands(value: Any) -> Iterator[tuple[KeyPath, Any]]:
    """Entries of ``runcmd`` and ``bootcmd`` that are no command: they make cloud-init drop the whole list."""
    for key in COMMAND_LISTS:
        commands = value.get(key)
        if isinstance(commands, list):
            for index, entry in enumerate(commands):
                if not isinstance(entry, str | list | None):
                    yield (key, index), entry


def _parses(text: str, file: str) -> bool:
    try:
        load_yaml_with_lines(text, source=file)
    except InvalidInput:
        return False
    return True


def _finding(document: Document, file: str, level: Level, code: str, message: str, path: KeyPath) -> Finding:
    position = document.position(path)
    field = ".".join(map(str, path)) or None
    return Finding(level, code, message, file, position.line, position.column, field, _HINTS.get(code))


_HINTS: Final = {
    "missing_header": f"Make '{HEADER}' the first line.",
    "duplicate_key": "Keep one of them.",
    "command_is_mapping": "Put the whole entry in single quotes; 'iceshelves egg lint --repair' does.",
    "command_not_text": "Put it in single quotes; 'iceshelves egg lint --repair' does.",
    "placeholder_ssh_key": "Remove it, or make it a parameter.",
    "fixed_hostname": "Leave it out: each instance is named at deployment.",
    "fixed_password": "Use SSH keys, or a secret parameter.",
}


def _findings(document: Document, file: str, text: str) -> Iterator[Finding]:
    if kind_of(text) == "unknown":
        message = f"Without the header '{HEADER}' cloud-init ignores this file."
        yield _finding(document, file, "error", "missing_header", message, ())
    value = document.value
    if value is None and kind_of(text) != "unknown":
        return  # only the header: nothing to configure is no mistake
    if not isinstance(value, dict):
        yield _finding(document, file, "error", "not_a_mapping", "cloud-config must be a mapping.", ())
        return
    for duplicate in document.duplicates:
        message = f"The key {str(duplicate.path[-1])[:80]!r} is given twice; only the last counts."
        line, column = duplicate.position.line, duplicate.position.column
        field = ".".join(map(str, duplicate.path))
        yield Finding("error", "duplicate_key", message, file, line, column, field, _HINTS["duplicate_key"])
    for path, entry in bad_commands(value):
        yield _bad_command(document, file, path, entry)
    for key in COMMAND_LISTS:
        if key in value and not isinstance(value[key], list):
            yield _finding(
                document, file, "error", "not_a_list", f"{key} must be a list of commands.", (key,)
            )


def _bad_command(document: Document, file: str, path: KeyPath, entry: Any) -> Finding:
    key, index = path
    number = int(index) + 1
    consequence = f"and cloud-init then runs none of {key}"
    if isinstance(entry, dict):
        message = f"Entry {number} of {key} holds ': ', so YAML reads it as a mapping, {consequence}."
        return _finding(document, file, "error", "command_is_mapping", message, path)
    message = f"Entry {number} of {key} is read as {type(entry).__name__} and not as text, {consequence}."
    return _finding(document, file, "error", "command_not_text", message, path)


def _slips(document: Document, file: str) -> Iterator[tuple[KeyPath, Finding]]:
    value = document.value
    for path, key in _authorized_keys(value):
        if not _is_ssh_key(key):
            message = "This is not a usable SSH key; it looks like a sample."
            yield path, _finding(document, file, "warning", "placeholder_ssh_key", message, path)
    for name in ("hostname", "fqdn"):
        if name in value:
            message = f"A fixed {name} collides as soon as there is a second instance."
            yield (name,), _finding(document, file, "hint", "fixed_hostname", message, (name,))
    if isinstance(value.get("password"), str):
        message = "Everybody who has the egg knows this password."
        yield ("password",), _finding(document, file, "warning", "fixed_password", message, ("password",))


def _authorized_keys(value: dict[str, Any]) -> Iterator[tuple[KeyPath, Any]]:
    users = value.get("users")
    owners: list[tuple[KeyPath, Any]] = [((), value)]
    if isinstance(users, list):
        owners += [(("users", index), user) for index, user in enumerate(users)]
    for path, owner in owners:
        if not isinstance(owner, dict):
            continue
        for name in ("ssh_authorized_keys", "ssh-authorized-keys"):
            keys = owner.get(name)
            if isinstance(keys, list):
                yield from (((*path, name, index), key) for index, key in enumerate(keys))


def _is_ssh_key(key: Any) -> bool:
    """A public key names its type twice: in front, and length-prefixed within (RFC 4253, 6.6)."""
    match = _KEY.search(key) if isinstance(key, str) else None
    if match is None:
        return False
    try:
        blob = base64.b64decode(match["blob"], validate=True)
    except binascii.Error:
        return False
    inner = blob[4 : 4 + int.from_bytes(blob[:4])]
    return inner == match["type"].encode() and len(blob) > len(inner) + 12


def _get(value: Any, path: KeyPath) -> Any:
    for part in path:
        value = value[part]
    return value
