"""The asynchronous side: whatever the process does, the caller gets a result or an error of ours."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from iceshelves.core.errors import Failed, NotFound, TimedOut
from iceshelves.images.build import launch
from iceshelves.images.build.builders import builder
from iceshelves.images.build.events import Event, Finished, Said, StageBegan, to_line
from iceshelves.images.build.job import Job, Limits
from unit.images.build.test_job import RESULT

pytestmark = pytest.mark.anyio

JOB = Job(recipe="/r", cache="/c", output="/o", limits=Limits(seconds=20.0))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def imitate(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Let a shell script be the builder."""
    monkeypatch.setattr(launch, "PROGRAM", ("sh", "-c", f"read -r job\n{script}"))


async def test_events_arrive_in_order_and_the_last_is_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Event] = [StageBegan("lock"), Said("lock", "it's"), Finished(RESULT)]
    lines = "\n".join(to_line(event).replace("'", "'\\''") for event in told)
    imitate(monkeypatch, f"printf '%s\\n' '{lines}'")
    heard: list[Event] = []
    assert await launch.build(JOB, heard.append) == RESULT
    assert heard == told


async def test_the_builders_error_is_raised_here(monkeypatch: pytest.MonkeyPatch) -> None:
    error = (
        '{"code":"packages_gone","message":"None has a=1.","hint":"Relock.","details":{"packages":["a=1"]}}'
    )
    imitate(monkeypatch, f"""echo '{{"event":"broke","kind":"NotFound","error":{error}}}'; exit 1""")
    with pytest.raises(NotFound) as raised:
        await launch.build(JOB, lambda _: None)
    assert (raised.value.code, raised.value.hint) == ("packages_gone", "Relock.")
    assert raised.value.details == {"packages": ["a=1"]}


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("echo hello", "builder_garbled"),
        ("head -c 200000 /dev/zero | tr '\\0' x; sleep 20", "builder_garbled"),
        ("echo 'Traceback: oh' >&2; exit 1", "builder_crashed"),
        ("exit 0", "builder_crashed"),
        ("kill -9 $$", "builder_crashed"),
        ("""echo '{"event":"broke","kind":"os","error":{"code":"odd"}}'""", "odd"),
    ],
)
async def test_a_builder_that_misbehaves_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, script: str, code: str
) -> None:
    imitate(monkeypatch, script)
    with pytest.raises(Failed) as raised:
        await asyncio.wait_for(launch.build(JOB, lambda _: None), 10)
    assert raised.value.code == code


async def test_cancelling_asks_it_to_stop_and_waits_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mark = tmp_path / "tidied"
    imitate(
        monkeypatch,
        f"trap 'sleep 0.2; touch {mark}; exit 1' TERM; echo '{to_line(StageBegan('base'))}'\n"
        "sleep 20 >&- 2>&- & wait",
    )
    begun = asyncio.Event()
    task = asyncio.create_task(launch.build(JOB, lambda _: begun.set()))
    await asyncio.wait_for(begun.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert mark.exists()


async def test_one_that_hangs_is_killed_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_GRACE", 0.3)
    imitate(monkeypatch, "trap '' TERM; while :; do sleep 0.1; done")
    begun = time.monotonic()
    with pytest.raises(TimedOut):
        await launch.build(Job("/r", "/c", "/o", limits=Limits(seconds=0.2)), lambda _: None)
    assert time.monotonic() - begun < 5


async def test_it_gets_nothing_of_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    imitate(monkeypatch, 'echo "$(env | grep -c canary) $(pwd)" >&2')
    with pytest.raises(Failed) as raised:
        await launch.build(JOB, lambda _: None)
    assert raised.value.message.endswith(f"0 {Path.cwd()}")


def test_builders_are_found_by_name() -> None:
    assert builder("mmdebstrap").name == "mmdebstrap"
    with pytest.raises(NotFound):
        builder("kaniko")
