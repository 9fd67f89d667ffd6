"""Running a program whose output is the build's log, line by line while it runs.

:func:`iceshelves.core.process.run` collects what a short program says and sets it a deadline; here the
program may run for minutes, people watch it, and the deadline is the whole build's: its end ends every
process of its namespace.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from iceshelves.core.errors import Failed

Say: TypeAlias = Callable[[str], None]

_TAIL: Final = 20
_MAX_LINE: Final = 64 * 1024


def stream(
    argv: Sequence[str],
    say: Say,
    *,
    env: Mapping[str, str],
    stdin: bytes = b"",
    within: Callable[[], None] | None = None,
) -> None:
    """Run ``argv`` until it ends, saying what it writes; ``within`` runs in the new process first.

    Raises :class:`Failed` (``program_missing``, ``program_failed``: the last line is in the message).
    """
    program = Path(argv[0]).name
    tail: deque[str] = deque(maxlen=_TAIL)
    with tempfile.TemporaryFile() as given:
        given.write(stdin)
        given.seek(0)
        try:
            process = subprocess.Popen(
                list(argv),
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=dict(env),
                preexec_fn=within,  # no other thread runs while a build runs programs
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise Failed(
                f"{program} cannot be started: {error}.",
                code="program_missing",
                hint=f"Install {program}, or put it on the PATH.",
            ) from error
    with process:
        assert process.stdout is not None  # noqa: S101  (asked for above)
        while raw := process.stdout.readline(_MAX_LINE):
            line = raw.decode(errors="replace").rstrip().rsplit("\r", 1)[-1]  # what a terminal would show
            if line:
                tail.append(line)
                say(line)
    if process.returncode != 0:
        raise Failed(
            f"{program} failed ({process.returncode}): {_reason(tail)}",
            code="program_failed",
            hint="The build's log has the lines before it.",
            details={"program": program, "returncode": process.returncode, "output": list(tail)},
        )


def _reason(tail: Sequence[str]) -> str:
    """The line that most likely says why: apt and dpkg put it behind ``E:`` and go on talking."""
    errors = [line for line in tail if line.startswith(("E: ", "dpkg: error", "Error: "))]
    return ([*errors, *list(tail)[-1:], "it said nothing"])[0][:500]
