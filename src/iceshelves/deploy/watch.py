"""Watching cloud-init in a guest, through one program and without polling.

``tail`` follows two files in the guest: cloud-init's output log, and ``result.json``, which cloud-init
writes as its very last act (cloud-init documentation, "Status": ``/run/cloud-init/result.json``).  ``tail``
prints a header whenever it turns from one file to the other, so one stream carries the log and, at its end,
the result.  This module reads that stream; it is pure.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from iceshelves.core.text import storable

LOG: Final = "/var/log/cloud-init-output.log"
RESULT: Final = "/run/cloud-init/result.json"
#: what ``/run/cloud-init/status.json`` is a link to
STATUS: Final = "/var/lib/cloud/data/status.json"
NO_CLOUD_INIT: Final = 66
#: -s bounds how late a file is seen that was not there yet; tail itself then waits for changes.
#: BusyBox's tail takes whole seconds only.
WATCH_SCRIPT: Final = (
    f"command -v cloud-init >/dev/null 2>&1 || exit {NO_CLOUD_INIT}; "
    "tail --version >/dev/null 2>&1 && every=0.1 || every=1; "
    f"exec tail -n +1 -s $every -F {LOG} {RESULT}"
)
#: the last word names the script to the fake guest
WATCH_COMMAND: Final = ("sh", "-c", WATCH_SCRIPT, "iceshelves-watch-cloud-init")

#: says in one word why cloud-init will never finish, or nothing
STALL_SCRIPT: Final = (
    "[ -e /run/cloud-init/disabled ] && { echo disabled; exit 0; }; "
    "command -v systemctl >/dev/null 2>&1 || exit 0; "
    "systemctl --no-legend --plain --state=failed list-units 'cloud-*.service' 2>/dev/null | cut -d' ' -f1"
)
STALL_COMMAND: Final = ("sh", "-c", STALL_SCRIPT, "iceshelves-cloud-init-stalled")

_MAX_LINE: Final = 16 * 1024
_MAX_RESULT: Final = 256 * 1024
_MAX_MESSAGES: Final = 50
_MAX_MESSAGE: Final = 2000


@dataclass(frozen=True, slots=True)
class CloudInitResult:
    """What cloud-init says of itself.  ``datasource`` is where it read our user-data, or ``…None``."""

    datasource: str
    errors: tuple[str, ...]


@dataclass
class CloudInitStream:
    """Feed it what ``tail`` prints; it gives back the log's lines and, at the end, the result."""

    result: CloudInitResult | None = None
    _pending: bytes = b""
    _section: str = LOG
    _result_text: list[str] = field(default_factory=list)
    _result_size: int = 0
    _blank: bool = False

    def feed(self, chunk: bytes) -> list[str]:
        """The complete log lines in ``chunk`` and what was left before it."""
        self._pending += chunk
        *complete, self._pending = self._pending.split(b"\n")
        if len(self._pending) > _MAX_LINE:  # a line without end is shown in pieces, not gathered for ever
            complete.append(self._pending)
            self._pending = b""
        lines = [line for raw in complete for line in self._take(_decode(raw))]
        if self._section == RESULT and self.result is None:
            self._try_result(_decode(self._pending))
        return lines

    def flush(self) -> list[str]:
        """What is left when the stream has ended."""
        rest, self._pending = self._pending, b""
        return list(self._take(_decode(rest))) if rest else []

    def _take(self, line: str) -> list[str]:
        if line in (f"==> {LOG} <==", f"==> {RESULT} <=="):
            self._blank = False  # tail puts a blank line before a header
            self._section = line[4:-4]
            self._result_text.clear()
            self._result_size = 0
            return []
        if self._section == RESULT:
            self._result_size += len(line) + 1
            if self._result_size <= _MAX_RESULT:
                self._result_text.append(line)
            return []
        held, self._blank = self._blank, line == ""
        return [""] * held + ([line] if line else [])

    def _try_result(self, rest: str) -> None:
        text = "\n".join([*self._result_text, rest]).strip()
        if text.endswith("}"):
            self.result = parse_result(text)


def parse_result(text: str) -> CloudInitResult | None:
    """Read ``result.json``; ``None`` while it is not complete."""
    parsed = _parse(text)
    v1 = parsed.get("v1") if isinstance(parsed, dict) else None
    if not isinstance(v1, dict):
        return None
    errors = v1.get("errors")
    return CloudInitResult(
        datasource=str(v1.get("datasource") or ""),
        errors=_bounded(errors) if isinstance(errors, list) else (),
    )


def parse_warnings(status_json: bytes) -> list[str]:
    """Recoverable errors in ``status.json`` (cloud-init 23.4 and later): done, but degraded."""
    parsed = _parse(status_json)
    v1 = parsed.get("v1") if isinstance(parsed, dict) else None
    found: dict[str, None] = {}
    for stage in v1.values() if isinstance(v1, dict) else ():
        groups = stage.get("recoverable_errors") if isinstance(stage, dict) else None
        for messages in groups.values() if isinstance(groups, dict) else ():
            for message in messages if isinstance(messages, list) else ():
                found[str(message)] = None
    return list(_bounded(found))


def _parse(text: str | bytes) -> Any:
    """The guest's JSON, or ``None`` where it is cut off, too large or too deep.

    Lone surrogates are allowed: cloud-init writes them where a program's output was not UTF-8.
    """
    try:
        return json.loads(text) if len(text) <= _MAX_RESULT else None
    except (ValueError, RecursionError):
        return None


def _bounded(messages: Iterable[object]) -> tuple[str, ...]:
    return tuple(
        storable(str(message)[:_MAX_MESSAGE]) for message in itertools.islice(messages, _MAX_MESSAGES)
    )


_TELLING: Final = ("error", "fail", "unable", "not found", "cannot", "no such", "denied", "e: ", "fatal")
_OWN_WORDS: Final = (
    "cloud-init v.", "ci-info:", "traceback", "  file ", "cc_scripts_user.py", "running module ",
    "re-raising the last one", "schema.py[",
)  # fmt: skip


# cloud-init writes each error as Python shows ('module', SomeError("words")).
_REPR: Final = re.compile(r"""^\('(?P<module>[\w-]+)', \w+\((?P<quote>["'])(?P<words>.*)(?P=quote)\)\)$""")


def plain_error(error: str) -> str:
    """``error`` of cloud-init's result as a sentence, where it has the form that cloud-init gives it."""
    match = _REPR.match(error)
    return f"{match['module']}: {match['words']}" if match else error


def telling_lines(lines: list[str], most: int = 5) -> list[str]:
    """The lines in which the guest most likely says what went wrong, in its order and its words."""
    found = [
        line for line in lines if any(word in line.lower() for word in _TELLING) and not _is_own(line.lower())
    ]
    return (
        found[-most:]
        if found
        else [line for line in lines if line.strip() and not _is_own(line.lower())][-most:]
    )


def _is_own(line: str) -> bool:
    return any(word in line for word in _OWN_WORDS)


def _decode(raw: bytes) -> str:
    return raw.decode("utf-8", "replace").rstrip("\r").replace("\x00", "\ufffd")
