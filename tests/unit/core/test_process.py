"""Running programs: their output, their failures, and that none outlives its deadline."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from iceshelves.core.errors import Failed, TimedOut
from iceshelves.core.process import run


def test_input_and_both_outputs_pass_whatever_their_size() -> None:
    program = (
        "import sys; d = sys.stdin.buffer.read(); sys.stdout.buffer.write(d); sys.stderr.buffer.write(d)"
    )
    data = bytes(range(256)) * 2000
    completed = run([sys.executable, "-c", program], stdin=data, timeout=20)
    assert (completed.returncode, completed.stdout, completed.stderr) == (0, data, data)


def test_a_program_may_leave_its_input_unread() -> None:
    assert run(["true"], stdin=b"x" * 1_000_000, timeout=5).returncode == 0


def test_failure_gives_the_last_line_and_not_the_arguments() -> None:
    completed = run(["sh", "-c", "echo first >&2; echo why >&2; exit 3", "s3cret"], timeout=5)
    with pytest.raises(Failed, match=r"^sh failed \(3\): why$") as caught:
        completed.checked()
    assert "s3cret" not in str(caught.value.to_json()) + repr(completed)


def test_a_missing_program_is_named() -> None:
    with pytest.raises(Failed) as caught:
        run(["no-such-program"], timeout=1)
    assert caught.value.code == "program_missing"


def test_a_timeout_ends_the_program_and_its_children(tmp_path: Path) -> None:
    script = f"sleep 60 & echo $! > {tmp_path}/child; wait"
    started = time.monotonic()
    with pytest.raises(TimedOut):
        run(["sh", "-c", script], timeout=0.5)
    assert time.monotonic() - started < 5
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 5
    while _runs(child):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_endless_output_is_cut_off() -> None:
    with pytest.raises(Failed) as caught:
        run(["yes"], timeout=10, max_output=100_000)
    assert caught.value.code == "output_too_large"


def test_the_environment_is_replaced_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_OUTSIDE", "1")
    assert run(["/usr/bin/env"], timeout=5, env={"ONLY": "this"}).stdout == b"ONLY=this\n"


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
