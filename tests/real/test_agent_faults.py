"""Bad lines between an agent and its server: as soon as the line is good, every deployment is finished."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from real.deploying import check_nothing_is_left, delete, deploy, egg, names
from testbed.agents import AgentProcess
from testbed.fault_proxy import (
    BlackHole,
    Cut,
    Fault,
    Garbage,
    HalfClose,
    Late,
    Reset,
    Sliced,
    SlowClose,
    ThreadedProxy,
)
from testbed.hosts import Host
from testbed.server import Server, running_server

FAULTS: dict[str, Fault] = {
    "latency": Late(0.05, jitter=0.05),
    "slices": Sliced(3000),
    "slow close": SlowClose(0.5),
    "resets": Reset(),
    "reset of a request": Reset(700, "up"),
    "reset of an answer": Reset(300, "down"),
    "cut of a request": Cut(700, "up"),
    "cut of an answer": Cut(300, "down"),
    "garbage in a request": Garbage(way="up"),
    "garbage in an answer": Garbage(way="down"),
    "half-closed by the agent": HalfClose(300, "up"),
    "half-closed by the server": HalfClose(300, "down"),
    "black hole": BlackHole(),
    "black hole in an answer": BlackHole(300, "down"),
}
#: seconds for a live call over a bad line
LONGEST = 15.0


@dataclass
class Line:
    """A server and its agent, and what stands between them."""

    server: Server
    proxy: ThreadedProxy


@pytest.fixture(scope="module")
def line(incus_host: Host, tiny_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    folder: Path = tmp_path_factory.mktemp("line")
    with running_server(folder) as server:
        server.post("/clusters", name="real", provider="incus", connection_method="agent-poll")
        server.import_egg(egg("plain", "#cloud-config\nruncmd:\n  - date >>/root/ran\n"))
        host, _, port = server.address.rpartition(":")
        with ThreadedProxy((host, int(port))) as proxy:
            token = server.post("/clusters/real/enroll")["token"]
            url = f"http://127.0.0.1:{proxy.port}/iceshelves"
            agent = AgentProcess(folder / "agent", url, token, incus_host.socket).start()
            yield Line(server, proxy)
            agent.stop()
    check_nothing_is_left(incus_host)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_deployment_over_a_bad_line(line: Line, incus_host: Host, fault: Fault) -> None:
    server = line.server
    line.proxy.arm(fault)
    accepted = deploy(server, "plain", "once", "tiny")
    where = f"/deployments/{accepted['deployment_id']}"
    time.sleep(1.5)
    began = time.monotonic()
    _look_in(server, where)
    assert time.monotonic() - began < LONGEST
    line.proxy.heal()
    operation = server.wait(accepted["operation_id"])
    assert operation["status"] == "succeeded", operation["error"]
    assert names(incus_host) == ["once"]
    assert len(incus_host.cli("exec", "once", "--", "cat", "/root/ran").stdout.splitlines()) == 1
    delete(server, accepted["deployment_id"])


def _look_in(server: Server, where: str) -> None:
    """Run a program by the API: it runs, or there are words for why it does not."""
    url = f"ws://{server.address}/iceshelves/api{where}/exec"
    headers = {"Authorization": f"Bearer {server.token}"}
    try:
        with connect(url, additional_headers=headers, open_timeout=LONGEST) as socket:
            socket.send(json.dumps({"command": ["true"]}))
            last = json.loads([message for message in socket if isinstance(message, str)][-1])
    except InvalidStatus as refused:
        last = {"error": {"code": json.loads(refused.response.body)["error_code"]}}
    assert last == {"exit": 0} or last["error"]["code"] != "internal_error"
