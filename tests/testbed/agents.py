"""A real agent in a process of its own, which tests may kill, and a server within the test's own process."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import socket

import uvicorn

from iceshelves.access.policy import Actor, Role
from iceshelves.connections.values import AgentStream
from iceshelves.core.settings import Settings
from iceshelves.deploy.control import ControlPlane
from iceshelves.server.app import create_app
from iceshelves.store.models import Cluster
from testbed.engine import IdleEngine
from testbed.hosts import Host, die_with_parent, wait_until
from testbed.server import Server

_ADMIN = Actor(1, 1, "admin", Role.ADMIN)


class AgentProcess:
    """``iceshelves agent`` with its state in ``state``; started again on the same state."""

    def __init__(self, state: Path, server_url: str, token: str, unix_socket: Path) -> None:
        self.state = state
        self.server_url = server_url
        self._socket = str(unix_socket)
        self._token: str | None = token
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> AgentProcess:
        """Start it; at the first start it enrols."""
        command = [sys.executable, "-m", "iceshelves", "agent", "--state", str(self.state)]
        if self._token is not None:
            command += ["--server", self.server_url, "--enroll", "-", "--socket", self._socket]
        self.process = subprocess.Popen(
            command,
            env={**os.environ, "LOG_LEVEL": "DEBUG"},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=(self.state.parent / "agent.log").open("a"),
            text=True,
            preexec_fn=die_with_parent,
        )
        assert self.process.stdin is not None
        with self.process.stdin as stdin:
            stdin.write(f"{self._token or ''}\n")
        if self._token is not None:
            wait_until((self.state / "identity.json").exists, f"the enrolment: {self.log()}", 20)
        self._token = None
        return self

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM, and its exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def log(self) -> str:
        """The end of what it has said."""
        file = self.state.parent / "agent.log"
        return file.read_text()[-3000:] if file.exists() else ""

    def memory(self) -> int:
        """Its resident memory, in bytes."""
        return self._status("VmRSS") * 1024

    def cpu_seconds(self) -> float:
        """What it has used of the processors."""
        assert self.process is not None
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _status(self, name: str) -> int:
        assert self.process is not None
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
        raise KeyError(name)


@contextmanager
def running_agent(server: Server, cluster: str, host: Host, folder: Path) -> Iterator[AgentProcess]:
    """An agent for ``cluster`` of ``server``, beside the daemon of ``host``."""
    token = server.post(f"/clusters/{cluster}/enroll")["token"]
    url = f"http://{server.address}/iceshelves"
    agent = AgentProcess(folder / "agent", url, token, host.socket).start()
    try:
        yield agent
    finally:
        agent.stop()


class _Served:
    """A control plane that a thread of this process serves."""

    def __init__(self, data: Path) -> None:
        self.control = ControlPlane(Settings(data=data), IdleEngine())
        self.loop: asyncio.AbstractEventLoop | None = None
        self._app = create_app(self.control)
        config = uvicorn.Config(
            self._app,
            port=0,
            log_config=None,
            ws="websockets-sansio",
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> int:
        """Start it; its port."""
        self._thread.start()
        wait_until(lambda: self._server.started, "the server")
        port: int = self._server.servers[0].sockets[0].getsockname()[1]
        return port

    def stop(self) -> None:
        """Stop it."""
        if self.loop is not None:
            self.loop.call_soon_threadsafe(self._app.state.services.closing.begin)
        self._server.should_exit = True
        self._thread.join(20)

    def _run(self) -> None:
        async def serve() -> None:
            self.loop = asyncio.get_running_loop()
            await self._server.serve()

        asyncio.run(serve())


@dataclass(frozen=True)
class Beside:
    """An agent, and a connection through its streams."""

    agent: AgentProcess
    connection: AgentStream


@contextmanager
def agent_beside(host: Host, folder: Path) -> Iterator[Beside]:
    """An agent beside the daemon of ``host``, and a server for it in this process."""
    served = _Served(folder / "data")
    with served.control.database.write() as session:
        cluster = Cluster(
            tenant_id=1, name="beside", provider=host.hypervisor.family, connection_method="agent-poll",
            endpoint_url="", created_by="admin",
        )  # fmt: skip
        session.add(cluster)
        session.flush()
        cluster_id = cluster.id
    port = served.start()
    token = served.control.agents.invite(_ADMIN, cluster_id).reveal()
    agent = AgentProcess(folder / "agent", f"http://127.0.0.1:{port}/iceshelves", token, host.socket).start()

    async def open_stream() -> socket:
        assert served.loop is not None
        asked = asyncio.run_coroutine_threadsafe(served.control.agents.open_stream(cluster_id), served.loop)
        return await asyncio.wrap_future(asked)

    try:
        yield Beside(agent, AgentStream("beside", open_stream, image_servers=()))
    finally:
        agent.stop()
        served.stop()
