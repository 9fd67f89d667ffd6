"""An image's own description, and the sources that it and its build get."""

from __future__ import annotations

from pathlib import Path

import pytest

from iceshelves.appliances.model import Base, Recipe
from iceshelves.core.errors import Conflict, InvalidInput, NotFound, Unsupported
from iceshelves.images.build import resolving, sources, system
from iceshelves.images.build.describing import describe, serial, template_files
from iceshelves.images.build.job import Job, Source
from iceshelves.images.build.lock import Lock, render_lock
from iceshelves.images.build.locking import builder_digest
from iceshelves.images.build.locking import lock as make_lock
from iceshelves.images.build.stages import check_possible
from iceshelves.images.metadata import read_metadata, write_metadata

RECIPE = Recipe(
    "web", "1.2", "A server", Base("debian", "bookworm"), title="Web", architectures=("amd64", "arm64")
)
LOCK = Lock(
    "web", RECIPE.digest, builder_digest(RECIPE, {}), 1_767_323_040, "debian", "bookworm", "amd64", (), ()
)
JOB = Job(recipe="/r", cache="/c", output="/o")


def test_an_image_says_what_it_is(tmp_path: Path) -> None:
    write_metadata(tmp_path / "m.tar.xz", describe(RECIPE, LOCK, "1.2"), template_files(RECIPE))
    metadata = read_metadata(tmp_path / "m.tar.xz")
    assert metadata.architecture == "x86_64"
    assert metadata.created == LOCK.epoch
    assert metadata.properties == {
        "os": "Debian", "release": "bookworm", "variant": "web", "architecture": "amd64", "version": "1.2",
        "description": "Web 1.2 on Debian bookworm", "serial": "20260102_0304",
    }  # fmt: skip
    assert set(metadata.templates) >= {"/etc/hostname", "/var/lib/cloud/seed/nocloud-net/user-data"}


def test_an_image_without_cloud_init_has_no_seed() -> None:
    plain = Recipe("web", "1", "A server", Base("debian", "bookworm"), cloud_init=False)
    assert set(describe(plain, LOCK, "1").templates) == {"/etc/hostname", "/etc/hosts"}
    assert set(template_files(plain)) == {"hostname.tpl", "hosts.tpl"}


def test_the_serial_is_in_utc() -> None:
    assert serial(0) == "19700101_0000"


def test_an_image_gets_the_official_sources_of_its_architecture() -> None:
    text = sources.sources_list(sources.official_sources("ubuntu", "noble", "arm64"))
    assert text.splitlines() == [
        "deb http://ports.ubuntu.com/ubuntu-ports noble main universe",
        "deb http://ports.ubuntu.com/ubuntu-ports noble-updates main universe",
        "deb http://ports.ubuntu.com/ubuntu-ports noble-security main universe",
    ]


def test_no_source_brings_options_of_its_own() -> None:
    with pytest.raises(InvalidInput):
        sources.sources_list((Source("http://m.example/x [trusted=yes]", "bookworm"),))


def test_the_settings_of_this_machine_are_those_that_matter_for_fetching(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dump = (
        'Acquire::http::Proxy "http://proxy.example:3142";\nAcquire::Retries "3";\n'
        'DPkg::Pre-Invoke:: "touch /tmp/x";\nAcquire::https::Verify-Peer "false" ; evil\n'
        'Acquire::http::Proxy-Auto-Detect "/usr/bin/x";\n'
    )
    answer = sources.run(["printf", "%s", dump], timeout=10.0)
    monkeypatch.setattr(sources, "run", lambda *_, **__: answer)
    assert sources.machine_settings().splitlines() == [
        'Acquire::http::Proxy "http://proxy.example:3142";',
        'Acquire::Retries "3";',
    ]


def test_apts_reason_is_passed_on() -> None:
    said = "Unmet dependencies:\n a : Depends: b (>= 2) but 1 is to be installed\nE: Broken\n"
    failed = sources.run(["sh", "-c", 'printf "%s" "$1"; exit 100', "sh", said], timeout=10.0)
    error = resolving._unresolvable(failed)
    assert "a : Depends: b (>= 2)" in error.message
    assert error.code == "packages_unresolvable"


@pytest.mark.parametrize(
    ("job", "kind", "code"),
    [
        (Job("/r", "/c", "/o", architecture="riscv64"), InvalidInput, "not_in_recipe"),
        (Job("/r", "/c", "/o", types=("virtual-machine",)), InvalidInput, "not_in_recipe"),
    ],
)
def test_what_the_recipe_does_not_give_is_refused(job: Job, kind: type[Exception], code: str) -> None:
    with pytest.raises(kind) as refused:
        check_possible(job, RECIPE)
    assert getattr(refused.value, "code", None) == code


def test_what_this_machine_cannot_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "s390x")
    with pytest.raises(Unsupported) as refused:
        check_possible(Job("/r", "/c", "/o", architecture="arm64"), RECIPE)
    assert refused.value.code == "architecture_unbuildable"


def test_an_exact_lock_needs_no_resolver(tmp_path: Path) -> None:
    path = tmp_path / "appliance.lock"
    path.write_text(render_lock(LOCK))
    assert make_lock(Job("/r", "/c", "/o", lock=str(path)), RECIPE, (), lambda _: None) == LOCK


@pytest.mark.parametrize(
    "other",
    [
        Recipe("web", "1.3", "A server", Base("debian", "bookworm"), title="Web"),
        Recipe("other", "1.2", "A server", Base("debian", "bookworm"), title="Web"),
    ],
)
def test_the_lock_of_another_recipe_is_refused(tmp_path: Path, other: Recipe) -> None:
    path = tmp_path / "appliance.lock"
    path.write_text(render_lock(LOCK))
    with pytest.raises(Conflict) as refused:
        make_lock(Job("/r", "/c", "/o", lock=str(path)), other, (), lambda _: None)
    assert refused.value.code == "lock_outdated"


def test_the_lock_of_another_builder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "appliance.lock"
    path.write_text(render_lock(LOCK))
    monkeypatch.setattr(system, "REVISION", system.REVISION + 1)
    with pytest.raises(Conflict, match="version of the builder"):
        make_lock(Job("/r", "/c", "/o", lock=str(path)), RECIPE, (), lambda _: None)


def test_a_lock_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as refused:
        make_lock(Job("/r", "/c", "/o", lock=str(tmp_path / "none")), RECIPE, (), lambda _: None)
    assert refused.value.code == "lock_not_found"
