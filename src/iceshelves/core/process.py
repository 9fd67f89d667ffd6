"""The one way to run another program: a list and never a shell, a deadline, and an end to its output.

The program gets a session of its own, so that a timeout ends it together with everything it started.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from iceshelves.core.errors import Failed, TimedOut

MAX_OUTPUT: Final = 4 * 1024 * 1024
_CHUNK: Final = 64 * 1024


@dataclass(frozen=True)
class Completed:
    """A program that ended by itself."""

    program: str
    returncode: int
    stdout: bytes = field(repr=False)
    stderr: bytes = field(repr=False)

    def checked(self) -> Completed:
        """Itself when it succeeded.  Raises :class:`Failed` with its last line of error output."""
        if self.returncode == 0:
            return self
        lines = self.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise Failed(
            f"{self.program} failed ({self.returncode}): {lines[-1][:500]}",
            code="program_failed",
            details={"program": self.program, "returncode": self.returncode, "stderr": lines[-20:]},
        )


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    max_output: int = MAX_OUTPUT,
) -> Completed:
    """Run ``argv`` with ``stdin`` for at most ``timeout`` seconds; ``env`` replaces the whole environment.

    Arguments never appear in errors: they may hold what a user typed.  Raises :class:`Failed`
    (``program_missing``, ``output_too_large``: more than ``max_output`` bytes) and :class:`TimedOut`.
    """
    program = Path(argv[0]).name
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=None if env is None else dict(env),
            cwd=cwd,
            start_new_session=True,
        )
    except OSError as error:
        raise Failed(
            f"{program} cannot be started: {error.strerror}.",
            code="program_missing",
            hint=f"Install {program}, or put it on the PATH.",
        ) from error
    with process:
        try:
            output = _Exchange(process, program, stdin, time.monotonic() + timeout, max_output).finish()
        except BaseException:
            _kill_session(process)
            raise
    return Completed(program, process.returncode, *output)


class _Exchange:
    """Feeds a program and collects what it says, until it closes both streams and ends."""

    def __init__(
        self, process: subprocess.Popen[bytes], program: str, stdin: bytes, deadline: float, room: int
    ) -> None:
        self._process = process
        self._program = program
        self._unsent = memoryview(stdin)
        self._deadline = deadline
        self._room = room
        self._collected: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}

    def finish(self) -> tuple[bytes, bytes]:
        streams: list[tuple[IO[bytes] | None, int, str]] = [
            (self._process.stdin, selectors.EVENT_WRITE, "stdin"),
            (self._process.stdout, selectors.EVENT_READ, "stdout"),
            (self._process.stderr, selectors.EVENT_READ, "stderr"),
        ]
        with selectors.DefaultSelector() as selector:
            for stream, event, name in streams:
                if stream is not None:
                    os.set_blocking(stream.fileno(), False)
                    selector.register(stream, event, name)
            while selector.get_map():
                for key, _ in selector.select(self._left()):
                    still_open = (
                        self._send(key.fd) if key.data == "stdin" else self._receive(key.fd, key.data)
                    )
                    if not still_open:
                        selector.unregister(key.fileobj)
                        key.fileobj.close()  # type: ignore[union-attr]  # registered as a stream above
        try:
            self._process.wait(self._left())
        except subprocess.TimeoutExpired as error:
            raise self._late() from error
        return bytes(self._collected["stdout"]), bytes(self._collected["stderr"])

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise self._late()
        return left

    def _late(self) -> TimedOut:
        return TimedOut(f"{self._program} did not finish in time and was stopped.", code="program_timed_out")

    def _send(self, descriptor: int) -> bool:
        if self._unsent:
            try:
                self._unsent = self._unsent[os.write(descriptor, self._unsent[:_CHUNK]) :]
            except BlockingIOError:
                return True
            except BrokenPipeError:  # it has read enough; its exit status says whether that was right
                return False
        return bool(self._unsent)

    def _receive(self, descriptor: int, name: str) -> bool:
        chunk = os.read(descriptor, _CHUNK)
        self._room -= len(chunk)
        if self._room < 0:
            raise Failed(f"{self._program} wrote more output than allowed.", code="output_too_large")
        self._collected[name] += chunk
        return bool(chunk)


def _kill_session(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # it ended meanwhile, and everything it started with it
