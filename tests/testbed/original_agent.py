"""An imitation of the original's agent, true to what it sends, asks of LXD, and forgets.

It polls with an empty body and works off what it gets one by one: it makes the instance by one call from the
local alias ``ubuntu/24.04``, with all that it was given merged into the configuration, starts it and reports.
It keeps nothing: what it is offered again it does again.
"""

from __future__ import annotations

import http.client
import json
import socket
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_ALIAS = "ubuntu/24.04"


class DaemonError(Exception):
    """What LXD refused, in its own words."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(60)
        self.sock.connect(str(self._path))


@dataclass
class OriginalAgent:
    """``server`` is ``host:port``; ``lost`` names the states whose reports do not reach the server."""

    server: str
    cluster_id: int
    key: str
    socket: Path
    lost: set[str] = field(default_factory=set)
    #: every report, lost or not
    reports: list[tuple[int, str]] = field(default_factory=list)

    def poll_once(self) -> int:
        """One round: poll, and do all that was offered; how much that was."""
        status, answer = self._post(f"/iceshelves/api/agent/poll/{self.cluster_id}", b"")
        assert status == 200, answer
        for offer in answer["deployments"]:
            self._carry_out(offer)
        return len(answer["deployments"])

    def _carry_out(self, offer: dict[str, Any]) -> None:
        deployment = offer["deployment_id"]
        if offer["deployment_type"] == "kvm":
            self._tell(deployment, "failed", "KVM deployment not supported")
            return
        if offer["deployment_type"] != "lxd":
            return
        self._tell(deployment, "in_progress", f"Deploying {offer['egg_name']} as {offer['instance_name']}")
        try:
            info = self._deploy(offer)
        except DaemonError as error:
            self._tell(deployment, "failed", "", error=str(error))
        else:
            self._tell(deployment, "completed", "Deployment completed", info=info)

    def _deploy(self, offer: dict[str, Any]) -> dict[str, Any]:
        name = offer["instance_name"]
        config = {"user.cloud-init.user-data": offer["cloud_init"], **(offer["config_overrides"] or {})}
        source = {"type": "image", "alias": _ALIAS}
        body = {"name": name, "source": source, "config": config, "profiles": ["default"]}
        self._daemon("POST", "/1.0/containers", body)
        self._daemon(
            "PUT", f"/1.0/containers/{name}/state", {"action": "start", "timeout": 30, "force": True}
        )
        made = self._daemon("GET", f"/1.0/containers/{name}")
        state = self._daemon("GET", f"/1.0/containers/{name}/state")
        card = (state.get("network") or {}).get("eth0") or {}
        return {
            "name": made["name"],
            "status": made["status"],
            "architecture": made["architecture"],
            "created_at": made["created_at"],
            "ipv4": card.get("addresses") or [],
        }

    def _tell(
        self, deployment: int, status: str, message: str, *, info: Any = None, error: str | None = None
    ) -> None:
        self.reports.append((deployment, status))
        if status in self.lost:
            return
        details = {"agent_hostname": socket.gethostname(), "timestamp": datetime.now(UTC).isoformat()}
        body = {"status": status, "message": message, "instance_info": info, "error_message": error,
                "details": details}  # fmt: skip
        answer = self._post(f"/iceshelves/api/agent/status/{deployment}", json.dumps(body).encode())
        assert answer == (200, {"success": True, "message": "Status updated"}), answer

    def _post(self, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection(self.server, timeout=30)
        try:
            headers = {"X-Agent-Key": self.key, "Content-Type": "application/json"}
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def _daemon(self, method: str, path: str, body: Any = None) -> Any:
        """The value at ``path``, or that of the operation that it began, once that has ended."""
        connection = _UnixConnection(self.socket)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        if answer["type"] == "error":
            raise DaemonError(answer["error"])
        if answer["type"] == "async":
            ended = self._daemon("GET", f"{answer['operation']}/wait")
            if ended["status_code"] != 200:
                raise DaemonError(ended["err"])
            return ended
        return answer["metadata"]
