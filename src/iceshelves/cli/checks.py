"""Checks as people see them: the state is a mark and a word, never the colour alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click

from iceshelves.cli.problems import ERROR
from iceshelves.cli.text import printable

#: the mark of each state, and its colour
_MARKS: Final = {
    "passed": ("✓", "green"),
    "warned": ("!", "yellow"),
    "failed": ("✗", "red"),
    "not_tried": ("·", None),
}


def check_line(ok: bool, name: str, message: str) -> str:
    """One check that went well or did not."""
    return _line("passed" if ok else "failed", name, message)


def state_of(check: Mapping[str, Any]) -> str:
    """passed, warned, failed or not_tried."""
    return str(check.get("state") or ("passed" if check["ok"] else "failed"))


def passed(report: Mapping[str, Any]) -> bool:
    """Whether a test of a cluster found nothing that keeps it from working."""
    checks = (report.get("details") or {}).get("checks") or []
    return report.get("status") == "active" and all(check["ok"] for check in checks)


def tell_test(report: Mapping[str, Any]) -> int:
    """Print the checks of a test, each failure with its remedy; the exit status."""
    details = report.get("details") or {}
    for check in details.get("checks") or []:
        state = state_of(check)
        message = "not tried" if state == "not_tried" else str(check.get("message") or "")
        click.echo(_line(state, str(check["name"]), message))
        if state in ("failed", "warned") and check.get("remedy"):
            click.echo("    " + printable(str(check["remedy"])).replace("\n", "\n    "))
    if not details.get("checks"):
        click.echo(check_line(passed(report), "connection", str(details.get("message") or "")))
    return 0 if passed(report) else ERROR


def _line(state: str, name: str, message: str) -> str:
    mark, colour = _MARKS.get(state, _MARKS["failed"])
    shown = click.style(mark, fg=colour) if colour else mark
    return f"{shown} {name}: {printable(message)}" if message else f"{shown} {name}"
