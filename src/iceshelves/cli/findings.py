"""What lint found, for people and for programs: each finding is a line FILE:LINE: level: message (code)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from iceshelves.cli.problems import ERROR
from iceshelves.cli.text import printable

if TYPE_CHECKING:
    from iceshelves.core.finding import Finding


def finding_text(finding: Finding, path: Path) -> str:
    """One finding; its file is told as seen from here."""
    place = f"{_place(path, finding.file)}:{finding.line}"
    colour = {"error": "red", "warning": "yellow"}.get(finding.level)
    level = click.style(f"{finding.level}:", fg=colour, bold=True)
    text = f"{printable(place)}: {level} {printable(finding.message)} ({finding.code})"
    return f"{text}\n    {printable(finding.hint)}" if finding.hint else text


def tell_findings(found: Sequence[tuple[Path, Finding]], format_: str, checked: str) -> int:
    """Print the findings about each path, as ``text`` or ``json``; the exit status, 1 if any is an error.

    ``checked`` is what was looked at, such as ``2 eggs``.
    """
    if format_ == "json":
        entries = [{"path": str(path), **finding.to_json()} for path, finding in found]
        click.echo(json.dumps(entries, indent=2, ensure_ascii=False))
    else:
        for path, finding in found:
            click.echo(finding_text(finding, path))
        click.echo(f"{checked}: {tally([finding for _, finding in found])}", err=True)
    return ERROR if any(finding.level == "error" for _, finding in found) else 0


def tally(findings: Sequence[Finding]) -> str:
    """How many there are of each level: ``1 error, 2 hints``."""
    counts = [
        f"{count} {level}{'' if count == 1 else 's'}"
        for level in ("error", "warning", "hint")
        if (count := sum(finding.level == level for finding in findings))
    ]
    return ", ".join(counts) or "nothing to complain about."


def _place(path: Path, file: str) -> str:
    """Where ``file`` of what is at ``path`` is; a finding about a packed file as a whole names that file."""
    if path.is_dir():
        return str(path / file)
    return str(path) if file == path.name else f"{path}:{file}"
