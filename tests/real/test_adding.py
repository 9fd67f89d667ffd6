"""Adding clusters as a new user would: command line, server, and real Incus and LXD on other machines."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from iceshelves.connections.certificates import fingerprint
from iceshelves.connections.ssh_keys import fingerprint as ssh_fingerprint
from testbed.hosts import Host
from testbed.https import Https
from testbed.server import Server, running_server
from testbed.sshd import missing_for_sshd, running_sshd

_PASSED = "✓"


@dataclass
class User:
    """Somebody at a command line, without a terminal."""

    server: Server

    def __call__(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "iceshelves", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            env={
                **os.environ,
                "ICESHELVES_SERVER": f"http://{self.server.address}/iceshelves",
                "ICESHELVES_TOKEN": self.server.token,
            },
            timeout=60,
            check=False,
        )

    def ok(self, *arguments: str, stdin: str = "") -> str:
        done = self(*arguments, stdin=stdin)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def show(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ok("cluster", "show", name, "--format", "json"))
        return found

    def checks(self, name: str) -> dict[str, dict[str, Any]]:
        report = json.loads(self("cluster", "test", name, "--format", "json").stdout)
        return {check["name"]: check for check in report["details"]["checks"]}


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    with running_server(tmp_path_factory.mktemp("adding")) as server:
        yield User(server)


@pytest.fixture(scope="module")
def incus(incus_host: Host) -> Https:
    return Https.of(incus_host)


@pytest.fixture(scope="module")
def lxd(lxd_host: Host) -> Https:
    return Https.of(lxd_host)


@pytest.fixture(params=["incus", "lxd"])
def either(request: pytest.FixtureRequest) -> Https:
    found: Https = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def name(user: User, request: pytest.FixtureRequest) -> Iterator[str]:
    chosen = re.sub("[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[-40:].strip("-")
    yield chosen
    user("cluster", "delete", chosen, "--yes")


def url(https: Https) -> str:
    return f"https://{https.address}:8443"


def family(https: Https) -> str:
    return https.host.hypervisor.family


def all_passed(said: str) -> bool:
    lines = [line for line in said.splitlines() if line[:1] in "✓✗!·"]
    return len(lines) >= 8 and all(line.startswith(_PASSED) for line in lines)


def test_by_token(user: User, incus: Https, name: str) -> None:
    said = user.ok("cluster", "add", name, "--token", stdin=incus.token("us"))
    assert all_passed(said), said
    found = user.show(name)
    assert found["endpoint_url"] == url(incus)
    assert found["server_fingerprint"] == fingerprint(incus.certificate)
    assert fingerprint(found["client_certificate"]) in incus.trusted()


def test_a_token_works_once(user: User, incus: Https, name: str) -> None:
    token = incus.token("once")
    user.ok("cluster", "add", f"{name}-first", "--direct", url(incus), "--token", stdin=token)
    again = user("cluster", "add", name, "--direct", url(incus), "--token", stdin=token)
    assert again.returncode == 1
    assert "token_refused" in again.stderr
    assert user("cluster", "show", name).returncode == 1
    user.ok("cluster", "delete", f"{name}-first", "--yes")


def test_by_password_after_a_look(user: User, lxd: Https, name: str) -> None:
    lxd.set_password("opensesame")
    command = ("cluster", "add", name, "--provider", "lxd", "--direct", url(lxd), "--password")
    refused = user(*command, stdin="opensesame")
    found = re.search(r"--fingerprint ([0-9a-f]{64})", refused.stderr)
    assert refused.returncode == 1
    assert found is not None
    assert found[1] == fingerprint(lxd.certificate)
    wrong = user(*command, "--fingerprint", found[1], stdin="wrong")
    assert "password_refused" in wrong.stderr
    said = user.ok(*command, "--fingerprint", found[1], stdin="opensesame")
    assert all_passed(said), said


def test_incus_has_no_password(user: User, incus: Https, name: str) -> None:
    pin = fingerprint(incus.certificate)
    command = ("cluster", "add", name, "--direct", url(incus), "--fingerprint", pin, "--password")
    assert "no_trust_password" in user(*command, stdin="x").stderr


def test_by_hand(user: User, either: Https, name: str, tmp_path: Path) -> None:
    pin = fingerprint(either.certificate)
    said = user.ok(
        *("cluster", "add", name, "--provider", family(either), "--direct", url(either), "--fingerprint", pin)
    )
    assert "does not let this server in yet" in said
    checks = user.checks(name)
    assert checks["certificate"]["state"] == "passed"
    assert checks["authentication"]["state"] == "failed"
    assert checks["rights"]["state"] == "not_tried"
    certificate = user.ok("cluster", "certificate", name)
    if family(either) == "incus":  # as the remedy says
        assert "incus config trust add-certificate -" in checks["authentication"]["remedy"]
        either.host.cli("config", "trust", "add-certificate", "-", stdin=certificate)
    else:
        file = either.host.root / "FILE"
        file.write_text(certificate)
        assert "lxc config trust add FILE" in checks["authentication"]["remedy"]
        either.host.cli("config", "trust", "add", str(file))
    assert all_passed(user.ok("cluster", "test", name))


def test_a_restricted_client_sees_which_projects_it_may_use(user: User, incus: Https, name: str) -> None:
    incus.host.cli("project", "create", "web")
    token = incus.token("restricted", "--restricted", "--projects", "web")
    done = user("cluster", "add", name, "--token", stdin=token)
    assert done.returncode == 1
    rights = user.checks(name)["rights"]
    assert rights["state"] == "failed", rights
    assert "web" in rights["remedy"]
    user.ok("cluster", "set", name, "--project", "web")
    assert user.checks(name)["rights"]["state"] == "passed"
    user.ok("cluster", "set", name, "--project", "nothing")
    assert user.checks(name)["rights"]["state"] == "failed"


def test_a_renewed_certificate_is_refused_until_it_is_accepted(user: User, either: Https, name: str) -> None:
    pin = fingerprint(either.certificate)
    token = either.token(name)
    command = ("cluster", "add", name, "--provider", family(either), "--direct", url(either), "--token")
    user.ok(*command, stdin=token)
    either.renew()
    found = fingerprint(either.certificate)
    failed = user.checks(name)["certificate"]
    assert failed["state"] == "failed"
    assert pin in failed["message"]
    assert found in failed["message"]
    assert f"iceshelves cluster accept-certificate {name}" in failed["remedy"]
    wrong = user("cluster", "accept-certificate", name, "--fingerprint", pin)
    assert "fingerprint_differs" in wrong.stderr
    user.ok("cluster", "accept-certificate", name, "--fingerprint", found)
    assert all_passed(user.ok("cluster", "test", name))
    details = user.server.get("/audit")["audit"][0]
    assert (details["action"], details["details"]) == (
        "cluster.accept-certificate", {"former": pin, "accepted": found},
    )  # fmt: skip
    user.ok("cluster", "members", name)  # what was open before has been opened anew


def test_our_certificate_is_rotated(user: User, either: Https, name: str) -> None:
    command = ("cluster", "add", name, "--provider", family(either), "--direct", url(either), "--token")
    user.ok(*command, stdin=either.token(name))
    user.ok("cluster", "members", name)
    former = fingerprint(user.show(name)["client_certificate"])
    assert "in use" in user.ok("cluster", "rotate", name)
    now = fingerprint(user.show(name)["client_certificate"])
    trusted = either.trusted()
    assert now in trusted
    assert former not in trusted
    assert all_passed(user.ok("cluster", "test", name))
    user.ok("cluster", "members", name)


def test_a_socket_and_a_project_that_is_not_there(user: User, incus: Https, name: str) -> None:
    user.ok("cluster", "add", name, "--socket", str(incus.host.socket))
    user.ok("cluster", "set", name, "--project", "nothing")
    rights = user.checks(name)["rights"]
    assert (rights["state"], "incus project create nothing" in rights["remedy"]) == ("failed", True)
    refused = user("cluster", "add", f"{name}-2", "--socket", str(incus.host.root / "daemon.log"))
    assert "not_a_socket" in refused.stderr


def test_over_ssh(user: User, either: Https, name: str) -> None:
    if reason := missing_for_sshd():
        pytest.skip(reason)
    host = either.host
    with running_sshd(host, port=2222) as sshd:
        way = f"ssh://root@{either.address}:2222{host.socket}"
        command = ("cluster", "add", name, "--provider", family(either), "--ssh", way)
        pin = ssh_fingerprint(sshd.host_key)
        assert f"--host-key {pin}" in user(*command).stderr
        said = user.ok(*command, "--host-key", pin)
        ours = user.ok("cluster", "certificate", name).strip()
        assert ours in said
        refused = user.checks(name)
        assert refused["host key"]["state"] == "passed"
        assert refused["authentication"]["state"] == "failed"
        assert ours.split()[1] in refused["authentication"]["remedy"]
        sshd.authorise(ours)
        assert all_passed(user.ok("cluster", "test", name))

        sshd.change_host_key()
        sshd.restart()
        sshd.authorise(ours)
        failed = user.checks(name)["host key"]
        assert failed["state"] == "failed"
        found = ssh_fingerprint(sshd.host_key)
        assert pin in failed["message"]
        assert found in failed["message"]
        user.ok("cluster", "accept-host-key", name, "--fingerprint", found)
        assert all_passed(user.ok("cluster", "test", name))

        pending = user.ok("cluster", "rotate", name)
        new = next(line for line in pending.splitlines() if line.startswith("ssh-ed25519"))
        assert new != ours
        assert all_passed(user.ok("cluster", "test", name))  # the former key is still in use
        sshd.authorise(ours, new)
        assert ours in user.ok("cluster", "rotate", name)
        sshd.authorise(new)
        assert all_passed(user.ok("cluster", "test", name))

        user.ok("cluster", "set", name, "--endpoint", way + "x")
        missing = user.checks(name)
        assert (missing["authentication"]["state"], missing["socket"]["state"]) == ("passed", "failed")
        assert missing["socket"]["remedy"]


def test_nothing_secret_is_left_where_others_look(user: User, incus: Https, name: str) -> None:
    token = incus.token("canary")
    user.ok("cluster", "add", name, "--direct", url(incus), "--token", stdin=token)
    data = user.server.data
    stored = b"".join(path.read_bytes() for path in data.glob("*.db*"))
    for secret in (b"PRIVATE KEY", token.encode()):
        assert secret not in stored
        assert secret not in (data.parent / "server.log").read_bytes()
