"""Testing a cluster: each step can fail, says how to mend it, and keeps the later ones from being tried."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from iceshelves.clusters.checks import examine
from iceshelves.clusters.health import AgentSeen
from iceshelves.clusters.report import AgentState, ClusterReport, Subject
from iceshelves.connections.certificates import make_client_certificate
from iceshelves.connections.values import AgentStream, Connection, SshHop, SshSocket, TlsApi, UnixSocket
from iceshelves.core import clock
from iceshelves.core.errors import Denied, Failed, IceShelvesError, NotFound
from iceshelves.core.secret import Secret
from iceshelves.providers.base import C, Member, Placement, Rights, ServerInfo
from testbed.outside import FakeOutside, away

SERVER = ServerInfo("incus", "6.0.4", "1.0", "hv", False, frozenset(), frozenset({"container"}))
SERVERS, OURS = make_client_certificate("server").certificate, make_client_certificate("us")
TLS = TlsApi("hv", 8443, OURS.certificate, OURS.key, SERVERS)
SSH = SshSocket((SshHop("hv", "root", "ssh-ed25519 AAAA"),), "/run/d.sock", Secret("key"))


@dataclass
class World:
    """A provider whose every answer can be a refusal."""

    server: ServerInfo | IceShelvesError = SERVER
    rights: IceShelvesError | None = None
    here: Sequence[Member] = (Member("hv", True, "Online"),)
    family: str = "incus"
    closed: bool = False
    outside: FakeOutside = field(default_factory=FakeOutside)

    async def probe(self) -> ServerInfo:
        if isinstance(self.server, IceShelvesError):
            raise self.server
        return self.server

    def offers(self, capability: type[C]) -> C | None:
        found: Any = self if capability in (Rights, Placement) else None
        return found  # type: ignore[no-any-return]

    async def check(self) -> str:
        if self.rights is not None:
            raise self.rights
        return "may be used"

    async def members(self) -> Sequence[Member]:
        return self.here

    async def close(self) -> None:
        self.closed = True

    def examine(self, connection: Connection, agent: AgentState | None = None) -> ClusterReport:
        subject = Subject("far", self.family, connection, lambda: self, agent)  # type: ignore[arg-type, return-value]
        report = asyncio.run(examine(subject, self.outside))
        assert self.closed
        return report


def states(report: ClusterReport) -> dict[str, str]:
    return {check.name: check.state for check in report.checks}


def failed_at(report: ClusterReport) -> tuple[str, str]:
    """Where it failed, and the remedy; what follows was not tried."""
    found = [check.state for check in report.checks]
    number = found.index("failed")
    assert set(found[:number]) <= {"passed", "warned"}
    assert set(found[number + 1 :]) <= {"not_tried"}
    check = report.checks[number]
    assert report.status == "error"
    assert report.message == check.message
    assert check.remedy
    return check.name, check.remedy


def test_all_is_well() -> None:
    assert states(World().examine(TLS)) == dict.fromkeys(
        (
            "name",
            "tcp",
            "certificate",
            "authentication",
            "rights",
            "version",
            "instances",
            "members",
            "expiry",
        ),
        "passed",
    )
    found = World().examine(SSH)
    assert (found.status, found.message) == ("active", "incus 6.0.4 on hv")
    assert list(states(found)) == [
        "name", "tcp", "host key", "authentication", "socket", "rights", "version", "instances", "members",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("connection", "world", "step", "remedy"),
    [
        (replace(TLS, host="nowhere"), World(), "name", "x"),
        (replace(TLS, port=1), World(), "tcp", "core.https_address"),
        (TLS, World(away()), "certificate", ""),
        (TLS, World(Denied("x", code="certificate_changed", hint="iceshelves cluster accept-that NAME")),
         "certificate", "accept-that far"),
        (TLS, World(Failed("x", code="no_tls", hint="port")), "certificate", "port"),
        (TLS, World(Denied("x", code="client_certificate_expired", hint="iceshelves cluster rotate NAME")),
         "authentication", "rotate far"),
        (TLS, World(Denied("x", code="not_trusted", hint="join the group")),
         "authentication", "incus config trust add-certificate -"),
        (SSH, World(Denied("x", code="host_key_changed", hint="h")), "host key", "h"),
        (SSH, World(Denied("x", code="ssh_denied", hint="authorized_keys")), "authentication", "authorized"),
        (SSH, World(away()), "socket", ""),
        (TLS, World(rights=NotFound("x", code="project_not_found", hint="use web")), "rights", "use web"),
        (TLS, World(replace(SERVER, family="lxd")),
         "version", "iceshelves cluster delete far, then add it with --provider lxd"),
        (TLS, World(Denied("x", code="certificate_changed", hint="see 'incus info' there"), family="lxd"),
         "certificate", "see 'lxc info' there"),
        (TLS, World(replace(SERVER, kinds=frozenset())), "instances", "LXC"),
        (TLS, World(here=(Member("hv", False, "Offline"),)), "members", "cluster list"),
    ],
)  # fmt: skip
def test_each_failure_has_its_step_and_its_remedy(
    connection: Connection, world: World, step: str, remedy: str
) -> None:
    if isinstance(world.server, IceShelvesError) and not world.server.hint:
        world.server.hint = "see there"
    name, told = failed_at(world.examine(connection))
    assert name == step
    assert remedy in told


def test_a_socket_that_is_none_that_is_not_there_and_that_may_not_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, remedy = failed_at(World().examine(UnixSocket(str(tmp_path / "absent"))))
    assert (step, "no such socket" in remedy) == ("socket", True)
    (tmp_path / "file").touch()
    step, remedy = failed_at(World().examine(UnixSocket(str(tmp_path / "file"))))
    assert (step, "cluster set far --socket" in remedy) == ("socket", True)
    monkeypatch.setattr(Path, "is_socket", lambda _path: True)
    monkeypatch.setattr("os.access", lambda *_: False)
    step, remedy = failed_at(World().examine(UnixSocket(str(tmp_path / "file"))))
    assert (step, "incus-admin" in remedy) == ("socket", True)
    monkeypatch.setattr("os.access", lambda *_: True)
    found = World(Denied("x", code="not_trusted", hint="join the group"))
    assert failed_at(found.examine(UnixSocket(str(tmp_path / "file")))) == (
        "authentication",
        "join the group",
    )


def test_a_member_that_is_away_is_a_warning() -> None:
    here = (Member("m1", True, "Online"), Member("m2", False, "Offline"))
    report = World(here=here).examine(TLS)
    assert report.status == "active"
    assert states(report)["members"] == "warned"
    assert "m2" in report.checks[-2].message
    assert [member["online"] for member in report.members] == [True, False]


def test_a_certificate_that_ends_soon_is_a_warning() -> None:
    ending = make_client_certificate("us", days=29)
    report = World().examine(replace(TLS, certificate=ending.certificate))
    assert (report.status, report.checks[-1].state) == ("active", "warned")
    assert report.checks[-1].remedy == "iceshelves cluster rotate far"
    report = World().examine(replace(TLS, trusted=make_client_certificate("server", days=29).certificate))
    assert "accept-certificate far" in str(report.checks[-1].remedy)


def agent(ago: float | None, **more: Any) -> AgentState:
    seen = None if ago is None else clock.now() - timedelta(seconds=ago)
    return AgentState(AgentSeen(True, seen, 60, **more), "1.0", "hv", streams=False)


async def _no_stream() -> socket.socket:
    raise away()


def test_an_agent_is_judged_by_when_it_was_seen() -> None:
    stream = AgentStream("far", _no_stream)
    assert states(World().examine(stream, agent(30))) == {"enrolled": "passed", "seen": "passed"}
    live = World().examine(stream, replace(agent(30), streams=True))
    assert states(live)["members"] == "passed"
    assert failed_at(World().examine(stream, agent(300)))[0] == "seen"
    assert failed_at(World().examine(stream, agent(None)))[0] == "seen"
    step, remedy = failed_at(World().examine(stream, agent(1, revoked=True)))
    assert (step, remedy) == ("enrolled", "Enrol one beside the hypervisor: iceshelves cluster enroll far")
    assert failed_at(World().examine(stream, None))[0] == "enrolled"
