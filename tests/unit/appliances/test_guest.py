"""What runs in an instance before its services: the environment, the first boot, each boot.

The programs themselves run here, by their own interpreters, on a tree that stands for the guest.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from iceshelves.appliances import Recipe, guest_files
from iceshelves.appliances.model import Base, File, Health, Port, Services, Variable, Volume


def recipe(**fields: object) -> Recipe:
    return Recipe("sample", "1.0", "A sample.", Base("debian", "bookworm"), **fields)  # type: ignore[arg-type]


def placed(files: tuple[File, ...], root: Path) -> None:
    for file in files:
        path = root / file.path[1:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
        path.chmod(file.mode)


class Instance:
    """A guest's tree, booted as often as one likes."""

    def __init__(self, root: Path, *variables: Variable) -> None:
        self.root = root
        (root / "etc").mkdir()
        (root / "proc" / "1").mkdir(parents=True)
        placed(guest_files(recipe(environment=variables), "1.0").files, root)

    @property
    def made(self) -> Path:
        return self.root / "etc/appliance/environment"

    def boot(self, **init: str) -> subprocess.CompletedProcess[bytes]:
        """Run the program with ``init`` as the environment of the first process."""
        given = b"".join(f"{name}={value}\0".encode() for name, value in {"PATH": "/bin", **init}.items())
        (self.root / "proc/1/environ").write_bytes(given)
        program = self.root / "usr/lib/appliance/environment"
        return subprocess.run([program, self.root], capture_output=True, check=False, timeout=10)

    def shell(self) -> Mapping[str, str]:
        """The environment as a shell reads it: services of systemd read the same."""
        script = f'set -a; . "{self.made}"; exec env -0'
        done = subprocess.run(
            ["env", "-i", "sh", "-euc", script], capture_output=True, check=True, timeout=10
        )
        pairs = (pair.split("=", 1) for pair in done.stdout.decode().split("\0") if pair)
        return {name: value for name, value in pairs if name not in ("PWD", "SHLVL", "_")}


def test_values_come_from_the_instance_then_from_the_recipe(tmp_path: Path) -> None:
    instance = Instance(
        tmp_path, Variable("A", "default"), Variable("B", ""), Variable("C"), Variable("D", "d")
    )
    assert instance.boot(D="own", E="unknown").returncode == 0
    assert instance.shell() == {"A": "default", "B": "", "D": "own"}
    instance.boot(C="c")
    assert instance.shell() == {"A": "default", "B": "", "C": "c", "D": "d"}
    assert instance.made.stat().st_mode & 0o777 == 0o600


def test_secrets_are_made_once_kept_and_given_way_to(tmp_path: Path) -> None:
    instance = Instance(tmp_path, Variable("A_PASSWORD", secret=True), Variable("B_PASSWORD", secret=True))
    instance.boot()
    first = instance.shell()
    assert all(value.isalnum() and len(value) == 32 for value in first.values())
    assert len(set(first.values())) == 2
    before = instance.made.stat()
    instance.boot()
    assert instance.shell() == first
    assert instance.made.stat().st_ino == before.st_ino  # nothing is written where nothing changed
    instance.boot(A_PASSWORD="own")
    assert instance.shell() == {**first, "A_PASSWORD": "own"}


@pytest.mark.parametrize("value", ["a b", "\"'`$(id)\\", "$HOME ${x} \\n", "é=#;", "a=b", " x ", "\\"])
def test_any_value_arrives_as_it_is_and_stays_so(tmp_path: Path, value: str) -> None:
    instance = Instance(tmp_path, Variable("A", value), Variable("B_KEY", secret=True))
    instance.boot(B_KEY=value)
    assert instance.shell() == {"A": value, "B_KEY": value}
    instance.boot()  # now the secret is read back from the file
    assert instance.shell()["B_KEY"] == value


@pytest.mark.parametrize("value", ["two\nlines", "\x01", "\x7f"])
def test_a_value_that_no_environment_file_holds_stops_the_boot(tmp_path: Path, value: str) -> None:
    instance = Instance(tmp_path, Variable("A", "old"))
    instance.boot()
    done = instance.boot(A=value)
    assert done.returncode != 0
    assert b"the value of A holds a control character" in done.stderr
    assert instance.shell() == {"A": "old"}


def test_a_half_written_file_of_an_earlier_boot_does_no_harm(tmp_path: Path) -> None:
    instance = Instance(tmp_path, Variable("A_KEY", secret=True))
    instance.made.parent.mkdir()
    target = tmp_path / "elsewhere"
    Path(f"{instance.made}.new").symlink_to(target)
    instance.made.write_text('A_KEY="kept"\nA_KEY=broken\nrubbish\n')
    assert instance.boot().returncode == 0
    assert instance.shell() == {"A_KEY": "kept"}
    assert not target.exists()


@pytest.fixture
def guest(tmp_path: Path) -> Path:
    """A guest's tree with scripts that write down when they ran."""
    scripts = {"first_boot": 'echo first "$A" >>"$LOG"', "each_boot": 'echo each "$A" >>"$LOG"'}
    variables = (Variable("A", "a value"), Variable("LOG", str(tmp_path / "log")))
    placed(guest_files(recipe(environment=variables, **scripts), "1.0").files, tmp_path)
    return tmp_path


def boot(root: Path) -> bool:
    return subprocess.run([root / "usr/lib/appliance/boot", root], check=False, timeout=10).returncode == 0


def test_the_first_boot_is_once_and_each_boot_is_each(guest: Path) -> None:
    assert boot(guest)
    assert boot(guest)
    assert (guest / "log").read_text() == "first a value\neach a value\neach a value\n"


def test_a_first_boot_that_failed_runs_again(guest: Path) -> None:
    script = guest / "usr/lib/appliance/first-boot"
    fine = script.read_text()
    script.write_text(fine + 'false\necho never >>"$LOG"\n')
    assert not boot(guest)
    script.write_text(fine)
    assert boot(guest)
    assert (guest / "log").read_text() == "first a value\nfirst a value\neach a value\n"


def test_volumes_go_to_their_owners(tmp_path: Path) -> None:
    owner = f"{pwd.getpwuid(os.getuid()).pw_name}:{grp.getgrgid(os.getgid()).gr_name}"
    volumes = (Volume("a", "/srv/new data", owner=owner, mode=0o750), Volume("b", "/srv/other"))
    placed(guest_files(recipe(volumes=volumes), "1.0").files, tmp_path)
    assert boot(tmp_path)
    assert (tmp_path / "srv/new data").stat().st_mode & 0o777 == 0o750
    assert not (tmp_path / "srv/other").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_a_volume_of_another_instance_changes_hands_with_all_that_is_in_it(tmp_path: Path) -> None:
    placed(guest_files(recipe(volumes=(Volume("a", "/srv", owner="daemon:daemon"),)), "1.0").files, tmp_path)
    (tmp_path / "srv/deep").mkdir(parents=True)
    (tmp_path / "srv/link").symlink_to("/etc/passwd")
    assert boot(tmp_path)
    daemon = pwd.getpwnam("daemon").pw_uid
    assert [path.lstat().st_uid for path in sorted((tmp_path / "srv").iterdir())] == [daemon, daemon]
    assert Path("/etc/passwd").stat().st_uid == 0
    (tmp_path / "srv/deep").chmod(0o700)
    os.chown(tmp_path / "srv/deep", 0, 0)  # what an operator gave away stays: the top is right already
    assert boot(tmp_path)
    assert (tmp_path / "srv/deep").stat().st_uid == 0


def test_an_image_without_anything_to_prepare_gets_no_unit() -> None:
    made = guest_files(recipe(services=Services(("nginx.service",))), "1.0")
    assert [file.path for file in made.files] == ["/usr/share/appliance/appliance.json"]
    assert made.enable == ()


def test_services_wait_and_get_the_environment() -> None:
    made = guest_files(
        recipe(each_boot="true", services=Services(("a@b-c.service", "d.socket", "e.timer"))), "1.0"
    )
    files = {file.path: file.content.decode() for file in made.files}
    service = files["/etc/systemd/system/a@b-c.service.d/appliance.conf"]
    assert "Requires=appliance.service\nAfter=appliance.service\n" in service
    assert "EnvironmentFile=/etc/appliance/environment" in service
    assert "[Service]" not in files["/etc/systemd/system/d.socket.d/appliance.conf"]
    assert not any("e.timer" in path for path in files)
    assert made.enable == ("appliance.service",)


def test_scripts_choose_their_interpreter() -> None:
    made = guest_files(recipe(first_boot="#!/usr/bin/perl\nprint 1", each_boot="x"), "1.0")
    files = {Path(file.path).name: file for file in made.files}
    assert files["first-boot"].content == b"#!/usr/bin/perl\nprint 1\n"
    assert files["each-boot"].content == b"#!/bin/sh\nset -eu\nx\n"
    assert {file.mode for name, file in files.items() if name.endswith("-boot")} == {0o755}


def test_what_the_image_says_of_itself_holds_no_default_of_a_variable() -> None:
    about = recipe(
        environment=(Variable("A", "default"),), ports=(Port(80),), health=Health("true", retries=7)
    )
    files = {file.path: file.content for file in guest_files(about, "2.1").files}
    said = json.loads(files["/usr/share/appliance/appliance.json"])
    assert (said["name"], said["version"]) == ("sample", "2.1")
    assert said["ports"] == [{"port": 80, "protocol": "tcp", "description": ""}]
    assert said["environment"] == [{"name": "A", "secret": False, "description": ""}]
    assert said["health"]["command"] == ["/usr/lib/appliance/health"]
    assert said["health"]["retries"] == 7
