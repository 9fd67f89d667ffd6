"""The builder with a real distribution: its packages, and a container that starts from the image."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from iceshelves.core.errors import Conflict, Failed, InvalidInput, NotFound
from iceshelves.images.build import launch
from iceshelves.images.build.builders import builder
from iceshelves.images.build.events import BuildResult, Event, Said, StageBegan
from iceshelves.images.build.job import Job, Source
from iceshelves.images.build.lock import LOCK, parse_lock
from iceshelves.images.metadata import read_metadata
from testbed import images
from testbed.hosts import Host, wait_until

pytestmark = pytest.mark.anyio

RECIPE = """\
name: greeter
version: {{from_package: busybox}}
description: Says hello on port 8080.
base: {{distribution: debian, release: {release}}}
architectures: [amd64, arm64]
cloud_init: false
packages: [busybox]
files:
  - {{path: /srv/www/index.html, content: "hello\\n"}}
  - path: /etc/systemd/system/greeter.service
    content: |
      [Service]
      ExecStart=/usr/bin/busybox httpd -f -p 8080 -h /srv/www
      [Install]
      WantedBy=multi-user.target
environment:
  - {{name: GREETER_TOKEN, secret: true}}
first_boot: |
  echo "$GREETER_TOKEN" | wc -c >/srv/www/length
actions:
  - name: A program of another interpreter
    run: |
      #!/usr/bin/perl
      open(my $made, '>', '/srv/www/perl') or die; print $made "ok\\n";
  - name: A user, and what a build leaves behind
    run: |
      useradd --system --home-dir /srv/www greeter
      date >/var/log/built; date >/var/tmp/built; ls >/srv/www/list
      test "$(ls /sys | wc -l)" = 0
      if echo 1 >/proc/sys/kernel/printk; then exit 1; fi
      if ls /proc/1/root/; then exit 1; fi
      if mount -t tmpfs none /mnt; then exit 1; fi
      if mknod /srv/disk b 8 0; then exit 1; fi
{more}
services: {{enable: [greeter]}}
"""

KEY = """\
  - name: Key
    run: |
      printf -- '-----BEGIN %s KEY-----\\n' PRIVATE >/etc/app.key
      head -c 48 /dev/zero | tr '\\0' A >>/etc/app.key
"""


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module", autouse=True)
def possible() -> None:
    if reason := builder("mmdebstrap").missing():
        pytest.skip(f"building images: {reason}")


def write_recipe(folder: Path, more: str = "") -> Path:
    suite, _ = images.own_suite()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "appliance.yaml").write_text(RECIPE.format(release=suite, more=more))
    return folder


@dataclasses.dataclass(frozen=True)
class Bench:
    """A folder with a recipe, a cache, and what was built first with both."""

    folder: Path
    job: Job
    first: BuildResult

    def again(self, name: str, **changes: object) -> Job:
        """The job with the first build's lock and a place of its own."""
        lock = str(Path(self.job.output) / LOCK)
        fresh = {"output": str(self.folder / name), "lock": lock, **changes}
        return dataclasses.replace(self.job, **fresh)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("bench")
    job = Job(
        recipe=str(write_recipe(folder / "recipe")),
        cache=str(folder / "cache"),
        output=str(folder / "first"),
        compression="fast",
    )
    return Bench(folder, job, asyncio.run(launch.build(job, lambda _: None)))


def remains(bench: Bench) -> list[str]:
    """Processes, the mounts that each of them sees, and unfinished files of builds in the bench's folder."""
    processes: list[str] = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            facts = [(process / name).read_text(errors="replace") for name in ("mountinfo", "cmdline")]
            processes += [fact for fact in facts if str(bench.folder) in fact]
    cache = Path(bench.job.cache)
    files = [*(cache / "work").iterdir(), *cache.glob("*/.*"), *bench.folder.glob(".*")]
    return [*processes, *map(str, files)]


@pytest.mark.slow
async def test_an_image_is_built_and_starts(bench: Bench, incus_host: Host) -> None:
    output = Path(bench.job.output)
    image = bench.first.images[0]
    metadata = read_metadata(output / image.metadata.name)
    lock = parse_lock((output / LOCK).read_bytes(), LOCK)
    assert metadata.properties["variant"] == "greeter"
    assert metadata.properties["version"] == bench.first.version
    assert {"busybox"} <= set(lock.versions())
    incus_host.import_image((output / image.metadata.name, output / image.data.name), "greeter")
    found = json.loads(incus_host.cli("image", "list", "greeter", "--format=json").stdout)
    assert [each["fingerprint"] for each in found] == [image.fingerprint]
    incus_host.cli("launch", "greeter", "greeter")
    try:
        answer = _until_answered(incus_host)
        assert answer == "hello"
        token = incus_host.cli("exec", "greeter", "--", "cat", "/srv/www/length").stdout.strip()
        assert incus_host.cli("exec", "greeter", "--", "cat", "/srv/www/perl").stdout == "ok\n"
        assert int(token) >= 32
        assert incus_host.cli("exec", "greeter", "--", "hostname").stdout.strip() == "greeter"
    finally:
        incus_host.cli("delete", "--force", "greeter")
    assert remains(bench) == []


def _until_answered(host: Host) -> str:
    answers: list[str] = []

    def asked() -> bool:
        command = ["exec", "greeter", "--", "busybox", "wget", "-qO-", "http://127.0.0.1:8080/"]
        try:
            answers.append(host.cli(*command).stdout.strip())
        except Exception:  # noqa: BLE001  (whatever it is, it is asked again)
            return False
        return True

    wait_until(asked, "the appliance to answer", 30)
    return answers[-1]


@pytest.mark.slow
async def test_one_lock_gives_one_image_elsewhere_and_later(bench: Bench) -> None:
    elsewhere = bench.folder / "elsewhere"
    recipe = shutil.copytree(bench.job.recipe, elsewhere / "recipe of a friend")
    job = bench.again("second: one, two", recipe=str(recipe), cache=str(elsewhere / "cache"))
    second = await launch.build(job, lambda _: None)
    assert second.images == bench.first.images
    warm = await launch.build(bench.again("third"), lambda _: None)
    assert warm.images == bench.first.images
    assert remains(bench) == []


@pytest.mark.slow
async def test_refreshing_keeps_a_lock_that_is_current(bench: Bench) -> None:
    again = await launch.build(bench.again("refreshed", lock_use="refresh"), lambda _: None)
    assert again.lock == bench.first.lock
    assert again.images == bench.first.images


@pytest.mark.parametrize("stage", ["packages", "pack"])
async def test_cancelling_leaves_nothing(bench: Bench, stage: str) -> None:
    begun = asyncio.Event()

    def hear(event: Event) -> None:
        if event == StageBegan(stage):  # type: ignore[arg-type]
            begun.set()

    job = bench.again(f"cancelled-{stage}")
    task = asyncio.create_task(launch.build(job, hear))
    await asyncio.wait_for(begun.wait(), 60)
    started = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - started < 5
    assert remains(bench) == []
    assert not Path(job.output).exists()


async def test_what_a_killed_build_leaves_the_next_one_removes(bench: Bench) -> None:
    begun = asyncio.Event()
    job = bench.again("killed")
    process = await asyncio.create_subprocess_exec(
        *launch.PROGRAM, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.environ.get("PYTHONPATH", "")},
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(job.to_json().encode())
    process.stdin.close()
    while b'"packages"' not in await process.stdout.readline():
        begun.set()
    process.kill()
    await process.wait()
    assert list((Path(bench.job.cache) / "work").iterdir()) != []
    await _fails(bench.again("after", recipe=str(bench.folder / "nowhere")), NotFound)
    assert remains(bench) == []


async def _fails(job: Job, kind: type[Exception]) -> tuple[str, list[Event]]:
    heard: list[Event] = []
    with pytest.raises(kind) as raised:
        await launch.build(job, heard.append)
    assert not Path(job.output).exists()
    return getattr(raised.value, "code", ""), heard


@pytest.mark.parametrize(
    ("more", "kind", "code"),
    [
        ("  - {name: Broken, run: 'echo so far; false; echo never'}", Failed, "program_failed"),
        (
            KEY,
            InvalidInput,
            "secret_in_image",
        ),
        ("  - {name: Network, run: 'busybox wget -T 2 -qO- http://192.0.2.1/'}", Failed, "program_failed"),
    ],
)  # fmt: skip
async def test_a_bad_recipe_fails_and_says_why(
    bench: Bench, tmp_path: Path, more: str, kind: type[Exception], code: str
) -> None:
    recipe = write_recipe(tmp_path / "recipe", more)
    job = bench.again(f"bad-{code}", recipe=str(recipe), lock_use="refresh")
    found, heard = await _fails(job, kind)
    assert found == code
    if "so far" in more:
        lines = [event.line for event in heard if isinstance(event, Said) and event.stage == "actions"]
        assert lines[-1] == "so far"
    assert remains(bench) == []


async def test_packages_that_are_gone_are_named(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    job = bench.again(
        "gone", cache=str(tmp_path / "cache"), sources=(Source(f"file:{tmp_path}/empty", "bookworm"),)
    )
    code, _ = await _fails(job, NotFound)
    assert code == "packages_gone"


async def test_a_lock_of_another_recipe_is_refused(bench: Bench, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe", "  - {name: More, run: 'true'}")
    code, _ = await _fails(bench.again("outdated", recipe=str(recipe)), Conflict)
    assert code == "lock_outdated"


async def test_a_folder_that_is_in_use_is_not_overwritten(bench: Bench) -> None:
    job = dataclasses.replace(bench.job)
    before = sorted(Path(job.output).iterdir())
    with pytest.raises(Conflict):
        await launch.build(job, lambda _: None)
    assert sorted(Path(job.output).iterdir()) == before
