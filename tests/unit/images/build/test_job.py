"""Jobs and events cross a pipe: what comes out is what went in, and nothing odd comes out."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from iceshelves.core.errors import Failed, IceShelvesError, InvalidInput
from iceshelves.images.build import events
from iceshelves.images.build.events import (
    Broke,
    BuildResult,
    BuiltFile,
    BuiltImage,
    Event,
    Finished,
    Said,
    StageBegan,
    StageEnded,
)
from iceshelves.images.build.job import Job, Limits, Source, parse_job

JOB = Job(
    recipe="/srv/recipes/web",
    cache="/var/cache/builds",
    output="/srv/images/web",
    sources=(Source("https://mirror.example/debian", "bookworm", ("main", "contrib"), "/usr/share/k.gpg"),),
    lock="/srv/recipes/web/appliance.lock",
    limits=Limits(seconds=60.0),
)
BUILT = BuiltFile("rootfs.squashfs", "0" * 64, 12)
RESULT = BuildResult(
    "web", "1.2", "amd64", "20260102_0304", 1767323040, "sha256:1", BUILT,
    (BuiltImage("container", "f" * 64, BUILT, BUILT),), 140, 1000, {"lock": 1.5},
)  # fmt: skip


def test_a_job_survives_the_pipe() -> None:
    assert parse_job(JOB.to_json()) == JOB


@pytest.mark.parametrize(
    "change",
    [
        {"recipe": "web"},
        {"output": "../images"},
        {"lock": "appliance.lock"},
        {"cache": "/var/cache/my builds"},
        {"cache": '/var/cache/"; DPkg::Pre-Invoke "touch'},
        {"architecture": "amd64;reboot"},
        {"types": []},
        {"types": ["container", "container"]},
        {"types": ["floppy"]},
        {"compression": "none"},
        {"limits": {"seconds": -1.0}},
        {"sources": [{"uri": "http://m.example/d] [trusted=yes", "suite": "bookworm"}]},
        {"sources": [{"uri": "http://m.example/d\ndeb x", "suite": "bookworm"}]},
        {"sources": [{"uri": "ftp://m.example/d", "suite": "bookworm"}]},
        {"sources": [{"uri": "http://m.example/d", "suite": "book worm"}]},
        {"sources": [{"uri": "http://m.example/d", "suite": "bookworm", "components": []}]},
        {"sources": [{"uri": "http://m.example/d", "suite": "bookworm", "keyring": "/k.gpg] x"}]},
    ],
)
def test_what_no_build_can_use_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_job(json.dumps({**dataclasses.asdict(JOB), **change}))
    assert refused.value.code == "invalid_job"


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"recipe": 1}', '{"recipe": "/r", "recipe": "/s"}'])
def test_what_is_no_job_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_job(text)


@pytest.mark.parametrize(
    "event",
    [
        StageBegan("lock"),
        StageEnded("base", 2.5),
        Said("packages", "Setting up nginx …"),
        Finished(RESULT),
        Broke("NotFound", {"code": "packages_gone", "message": "No.", "hint": None, "details": {"a": [1]}}),
    ],
)
def test_an_event_survives_the_pipe(event: Event) -> None:
    line = events.to_line(event)
    assert "\n" not in line
    assert events.from_line(line) == event


def test_a_long_line_of_the_log_is_cut() -> None:
    cut = events.from_line(events.to_line(Said("actions", "x" * 100_000)))
    assert isinstance(cut, Said)
    assert 0 < len(cut.line) < events.MAX_LINE


@pytest.mark.parametrize(
    "line",
    ["hello", "{}", '{"event": "party"}', '{"event": "said"}', '{"event": "stage_began", "stage": "x"}'],
)
def test_what_is_no_event_is_refused(line: str) -> None:
    with pytest.raises(Failed) as refused:
        events.from_line(line)
    assert isinstance(refused.value, IceShelvesError)
    assert refused.value.code == "builder_garbled"
