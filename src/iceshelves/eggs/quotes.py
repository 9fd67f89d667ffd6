"""The opt-in repair for the commonest slip in an egg: a command that YAML takes for a mapping."""

from __future__ import annotations

import copy
from typing import Any

import yaml

from iceshelves.core.bounded import KeyPath, load_yaml, load_yaml_with_lines
from iceshelves.eggs.model import USER_DATA
from iceshelves.eggs.userdata import bad_commands


def repair_quotes(user_data: bytes) -> bytes:
    """``user_data`` with each command of ``runcmd`` and ``bootcmd`` that is no text put in single quotes.

    Every other byte stays.  Entries that span several lines are real mappings and are left alone.  The result
    is parsed again; it is given only if nothing but those entries changed.  Raises :class:`InvalidInput` when
    ``user_data`` does not parse.
    """
    document = load_yaml_with_lines(user_data, source=USER_DATA)
    if not isinstance(document.value, dict):
        return user_data
    text = user_data.decode()
    root = yaml.compose(text, Loader=yaml.CSafeLoader)
    expected = copy.deepcopy(document.value)
    edits: list[tuple[int, int, str]] = []
    for path, _ in bad_commands(document.value):
        node = _node(root, path)
        start = node.start_mark.index
        command, *rest = text[start : node.end_mark.index].splitlines() or [""]
        command = command.rstrip()
        if not command or any(line.strip() and not line.lstrip().startswith("#") for line in rest):
            continue
        edits.append((start, start + len(command), "'" + command.replace("'", "''") + "'"))
        expected[path[0]][path[1]] = command
    for start, end, quoted in sorted(edits, reverse=True):
        text = text[:start] + quoted + text[end:]
    return text.encode() if edits and load_yaml(text, source=USER_DATA) == expected else user_data


def _node(root: Any, path: KeyPath) -> Any:
    key, index = path
    commands = [value for name, value in root.value if name.value == key]
    return commands[-1].value[index]
