"""Stories of the command line: the real program against a real server, whose cluster is the built-in fake."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PROGRAM = [sys.executable, "-c", "from iceshelves.cli.main import main; main()"]
SCRIPT: dict[str, Any] = {
    "guests": {
        "broken*": {
            "result": "error",
            "output": [{"text": "E: Unable to locate package nosuch"}],
            "errors": ["('scripts_user', RuntimeError('Runparts: 1 failures'))"],
        },
        "stuck*": {"result": "never", "output": [{"text": "Waiting for something"}]},
        "slow*": {"duration": 4.0, "output": [{"text": "one"}, {"text": "two", "at": 3.0}]},
        "*": {"commands": [{"like": "fails*", "status": 7, "stdout": "out", "stderr": "err"}]},
    }
}


@dataclass
class Server:
    """A server process that can be killed and started again on its port."""

    data: Path
    environment: dict[str, str]
    listen: str = "127.0.0.1:0"
    process: subprocess.Popen[str] | None = None

    def start(self) -> str:
        """Start it, wait until it is ready, and return its URL."""
        token_file = self.data.parent / "token"
        self.process = subprocess.Popen(
            [
                *PROGRAM,
                "serve",
                "--listen",
                self.listen,
                "--data",
                self.data,
                "--admin-token-file",
                token_file,
            ],
            stdout=subprocess.PIPE,
            text=True,
            env=self.environment,
        )
        stream = self.process.stdout
        assert stream is not None
        assert select.select([stream], [], [], 20)[0], "the server did not say that it is ready"
        found = re.search(r"ready at (http://(\S+?)/iceshelves)", stream.readline())
        assert found is not None
        self.listen = found[2]
        return found[1]

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it, and wait until it has."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(10)
            if self.process.stdout is not None:
                self.process.stdout.close()


@dataclass
class Shop:
    """A server, and a user who is logged in to it."""

    server: Server
    environment: dict[str, str]

    def __call__(self, *arguments: str | Path, stdin: str | None = "") -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        return subprocess.run(
            [*PROGRAM, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=60,
            check=False,
        )

    def json(self, *arguments: str) -> Any:
        """What a command prints for programs."""
        done = self(*arguments, "--format", "json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """Start one command, as a terminal would: Ctrl-C can be sent to it."""
        return subprocess.Popen(
            [*PROGRAM, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
            # tests that run in the background of a script have it ignored, which children inherit
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    place = tmp_path_factory.mktemp("shop")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ICESHELVES_")},
        "XDG_CONFIG_HOME": str(place / "config"),
    }
    server = Server(place / "data", environment)
    url = server.start()
    shop = Shop(server, environment)
    try:
        assert shop("login", url, "--token-file", place / "token", "--name", "here").returncode == 0
        (place / "script.json").write_text(json.dumps(SCRIPT))
        world = f"fake://lab?file={place}/world.json"
        added = shop(
            *("cluster", "add", "lab", "--provider", "fake"),
            *("--endpoint", world, "--options", place / "script.json"),
        )
        assert added.returncode == 0, added.stdout + added.stderr
        yield shop
    finally:
        server.kill()


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"t{time.monotonic_ns()}"


def read_until(process: subprocess.Popen[str], text: str) -> None:
    """Read what a command says on standard error until a line has ``text``."""
    stream = process.stderr
    assert stream is not None
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        line = stream.readline()
        if text in line:
            return
        assert line, f"it ended before it said {text!r}"
    pytest.fail(f"it never said {text!r}")


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_life_of_an_instance(shop: Shop, name: str) -> None:
    done = shop("deploy", "hello-web", f"lab:{name}", "-p", "greeting=Hello")
    assert done.returncode == 0, done.stderr
    assert f"lab:{name} is ready" in done.stdout
    assert "cloud init: done" in done.stderr

    (listed,) = [each for each in shop.json("list") if each["instance_name"] == name]
    assert (listed["status"], listed["revision"]) == ("completed", 1)
    assert shop.json("show", name)["instance_info"]["ipv4"][0] in done.stdout
    assert "Cloud-init" in shop("logs", name, "--guest").stdout

    updated = shop("update", name, "-p", "greeting=Again")
    assert updated.returncode == 0, updated.stderr
    assert shop.json("show", name)["revision"] == 2
    assert shop("rollback", name).returncode == 0

    assert shop("delete", name).returncode == 1
    assert shop("delete", name, "--yes").returncode == 0
    assert shop("show", name).returncode == 1


def test_a_command_in_the_guest_is_like_one_here(shop: Shop, name: str) -> None:
    assert shop("deploy", "hello-web", name).returncode == 0
    assert shop("exec", name, "--", "echo", "-n", "ä b").stdout == "-n ä b\n"
    failed = shop("exec", name, "fails")
    assert (failed.returncode, failed.stdout, failed.stderr) == (7, "out", "err")
    text = "typed\n" * 50_000
    assert shop("exec", name, "cat", stdin=text).stdout == text
    missing = shop("exec", "99999", "ls")
    assert missing.returncode == 1
    assert "Error:" in missing.stderr


def test_a_failure_is_told_in_the_guests_words_and_kept_for_a_look(shop: Shop) -> None:
    done = shop("deploy", "hello-web", "lab:broken1")
    assert (done.returncode, done.stdout) == (1, "")
    assert "E: Unable to locate package nosuch" in done.stderr
    assert "Runparts: 1 failures" in done.stderr
    shown = shop.json("show", "broken1")
    assert shown["status"] == "failed"
    assert "Runparts: 1 failures" in shop("show", "broken1").stdout
    retried = shop("retry", "broken1", "--no-wait")
    assert retried.returncode == 0, retried.stderr


def test_ctrl_c_cancels_and_leaves_nothing(shop: Shop) -> None:
    deploying = shop.begin("deploy", "hello-web", "lab:stuck1")
    read_until(deploying, "cloud init: running")
    deploying.send_signal(signal.SIGINT)
    _, said = deploying.communicate(timeout=30)
    assert deploying.returncode == 130
    assert "Cancelling" in said
    assert shop.json("operation", "list")[0]["status"] == "cancelled"


def test_ctrl_c_twice_detaches_and_the_way_back_works(shop: Shop, name: str) -> None:
    slow = f"slow{name}"
    deploying = shop.begin("deploy", "hello-web", f"lab:{slow}")
    read_until(deploying, "cloud init: running")
    deploying.send_signal(signal.SIGINT)
    read_until(deploying, "Cancelling")
    deploying.send_signal(signal.SIGINT)
    _, said = deploying.communicate(timeout=30)
    assert deploying.returncode == 130
    if "Not waiting" in said:  # else the cancelling was faster than the second signal
        found = re.search(r"iceshelves operation watch (\S+)", said)
        assert found is not None
        assert shop("operation", "watch", found[1]).returncode in (0, 130)


def test_not_waiting_watching_and_cancelling_from_elsewhere(shop: Shop) -> None:
    accepted = shop.json("deploy", "hello-web", "lab:stuck2", "--no-wait")
    watching = shop.begin("operation", "watch", accepted["operation_id"])
    read_until(watching, "cloud init: running")
    assert shop("cancel", "stuck2").returncode == 0
    watching.communicate(timeout=30)
    assert watching.returncode == 130


def test_following_a_log_prints_what_comes(shop: Shop, name: str) -> None:
    slow = f"slow{name}"
    accepted = shop.json("deploy", "hello-web", f"lab:{slow}", "--no-wait")
    following = shop.begin("logs", slow, "-f", "--guest")
    assert following.stdout is not None
    lines = [following.stdout.readline().strip() for _ in range(2)]
    assert lines == ["one", "two"]
    following.send_signal(signal.SIGINT)
    following.communicate(timeout=10)
    assert following.returncode == 0
    assert shop("operation", "watch", accepted["operation_id"]).returncode == 0


def test_a_server_that_is_killed_and_started_again_is_not_noticed_at_the_end(shop: Shop, name: str) -> None:
    slow = f"slow{name}"
    deploying = shop.begin("deploy", "hello-web", f"lab:{slow}")
    read_until(deploying, "cloud init: running")
    shop.server.kill()
    shop.server.start()
    out, said = deploying.communicate(timeout=60)
    assert deploying.returncode == 0, said
    assert "Reconnecting" in said
    assert f"lab:{slow} is ready" in out
    assert len([each for each in shop.json("list") if each["instance_name"] == slow]) == 1


def test_an_egg_of_ones_own_from_nothing_to_an_instance(shop: Shop, name: str, tmp_path: Path) -> None:
    directory = tmp_path / name
    assert shop("egg", "new", directory).returncode == 0
    assert shop("egg", "lint", directory).returncode == 0
    done = shop("deploy", directory, f"lab:{name}")
    assert done.returncode == 0, done.stderr
    assert "is in the library." in done.stderr
    assert shop("egg", "diff", name, directory).returncode == 0
    assert shop.json("egg", "show", name)["version"] == "0.1.0"
    rendered = shop("egg", "render", name).stdout
    assert rendered == shop("egg", "render", directory).stdout != ""
    again = shop("egg", "unpack", name, tmp_path / "again")
    assert again.returncode == 0, again.stderr
    in_use = shop("egg", "delete", f"{name}@0.1.0")
    assert in_use.returncode == 1

    (directory / "cloud-init.yaml").write_text("#cloud-config\nruncmd:\n  - echo a: b\n")
    broken = shop("deploy", directory, f"lab:{name}x")
    assert broken.returncode == 1
    assert "cloud-init.yaml:3: error" in broken.stderr


def test_users_and_what_they_may(shop: Shop, name: str) -> None:
    added = shop("user", "add", name, "--role", "viewer")
    assert added.returncode == 0, added.stderr
    as_viewer = Shop(shop.server, {**shop.environment, "ICESHELVES_TOKEN": added.stdout.strip()})
    assert as_viewer("list").returncode == 0
    refused = as_viewer("deploy", "hello-web", f"lab:{name}")
    assert refused.returncode == 1
    assert "permission_missing" in refused.stderr
    assert as_viewer("exec", "1", "ls").returncode == 1
    assert shop("user", "remove", name, "--yes").returncode == 0
    eventually(lambda: as_viewer("list").returncode == 1)


def test_the_administrators_token_can_be_renewed_beside_the_running_server(shop: Shop) -> None:
    renewed = shop("admin-token", "--data", shop.server.data)
    assert renewed.returncode == 0, renewed.stderr
    logged_in = shop("login", f"http://{shop.server.listen}", "--name", "here", stdin=renewed.stdout)
    assert logged_in.returncode == 0, logged_in.stderr
    assert renewed.stdout.strip() not in logged_in.stdout + logged_in.stderr


def test_doctor_finds_everything_in_order(shop: Shop) -> None:
    done = shop("doctor")
    assert done.returncode == 0, done.stdout
    assert "✓ cluster lab" in done.stdout
    away = Shop(shop.server, {**shop.environment, "ICESHELVES_SERVER": "http://127.0.0.1:9"})
    assert away("doctor").returncode == 1
    assert "iceshelves login" in away("list").stderr


def test_a_port_that_is_taken_is_told(shop: Shop, tmp_path: Path) -> None:
    done = shop("serve", "--listen", shop.server.listen, "--data", tmp_path / "other")
    assert done.returncode == 1
    assert "address_in_use" in done.stderr


def test_the_reader_of_a_pipe_may_leave_early(shop: Shop) -> None:
    command = " ".join(repr(each) for each in PROGRAM)
    line = f'{command} egg list --format json | head -c 1; echo "${{PIPESTATUS[0]}}"'
    done = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, env=shop.environment, check=False, timeout=30
    )
    assert done.stdout == "[0\n"
    assert done.stderr == ""


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("line", "replies"),
    [("show lab:{name}", ["{name}"]), ("deploy hello-w", ["hello-web"]), ("deploy hello-web la", ["lab:"])],
)
def test_bash_completes_live_names(
    shop: Shop, name: str, tmp_path: Path, line: str, replies: list[str]
) -> None:
    assert shop("deploy", "hello-web", f"lab:{name}", "--no-wait").returncode == 0
    program = tmp_path / "iceshelves"
    program.write_text(f'#!/bin/sh\nexec {" ".join(repr(each) for each in PROGRAM)} "$@"\n')
    program.chmod(0o755)
    typed = f"iceshelves {line.format(name=name)}"
    script = (
        f'eval "$({program} completion bash)"; compopt() {{ :; }}\n'
        f"COMP_LINE={typed!r} COMP_POINT={len(typed)}\n"
        f" _iceshelves_completion {program}; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env=shop.environment, check=False, timeout=30
    )
    assert done.stdout.split() == [reply.format(name=name) for reply in replies], done.stderr
