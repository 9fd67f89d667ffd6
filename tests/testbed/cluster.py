"""Hosts joined into one cluster: members come, go when their plugs are pulled, and come back."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from testbed.hosts import INCUS, Host, Hypervisor, TestbedError, wait_until

#: seconds without a heartbeat after which a member counts as offline.  The daemons take 11, but beside a dead
#: member a round of heartbeats takes about 15, and then living ones pass for dead now and then.
OFFLINE_AFTER: Final = 18
_PORT: Final = 8443


@dataclass
class Cluster:
    """A cluster of ``hypervisor``; its members are called m1, m2 … and each has a host of its own."""

    hypervisor: Hypervisor = INCUS
    members: dict[str, Host] = field(default_factory=dict)

    @property
    def first(self) -> Host:
        """The member that the cluster began with; ours to talk to, so it is never killed."""
        return next(iter(self.members.values()))

    def grow(self) -> Host:
        """Switch on one more host and make it a member."""
        name = f"m{len(self.members) + 1}"
        host = Host(f"is{self.hypervisor.family}-{os.getpid()}-{name}", self.hypervisor)
        host.start()
        founds = not self.members
        self.members[name] = host
        if founds:
            host.configure(_founding(name, _address(host)))
            # in the preseed, these make Incus 6.0 drop the connection
            host.cli("config", "set", f"cluster.offline_threshold={OFFLINE_AFTER}")
            host.cli("config", "set", "cluster.images_minimal_replica=-1")
        else:
            token = self.first.cli("cluster", "add", name, "--quiet").stdout.split()[-1]
            host.configure(_joining(_address(host), token))
            wait_until(lambda: self.statuses().get(name) == "Online", f"member {name}")
        return host

    def stop(self) -> None:
        """Pull all plugs and throw the machines away."""
        for host in reversed(self.members.values()):
            host.stop()

    # ---- looks at it by its own client

    def query(self, path: str, witness: str = "m1") -> Any:
        """What the API answers at ``path`` to somebody on ``witness``."""
        return json.loads(self.members[witness].cli("query", path).stdout)

    def statuses(self) -> dict[str, str]:
        """The members and the state that the cluster says they are in."""
        listed = self.query("/1.0/cluster/members?recursion=1")
        return {member["server_name"]: member["status"] for member in listed}

    def instances(self) -> dict[str, str]:
        """The instances, as the database has them, and the member that each is on."""
        listed = self.first.cli("list", "--format=csv", "--columns=nL").stdout
        return dict(line.split(",") for line in listed.split())

    def wait_for(self, member: str, status: str, seconds: float = 40) -> None:
        """Wait until the cluster says that ``member`` is ``status``."""
        try:
            wait_until(lambda: self.statuses()[member] == status, f"{member} to be {status}", seconds)
        except TestbedError as failure:
            raise TestbedError(f"{failure}: {self.statuses()}") from None


def _address(host: Host) -> str:
    if host.cable is None:
        raise TestbedError(f"{host.name} is not switched on")
    return f"{host.cable.address}:{_PORT}"


def _founding(name: str, address: str) -> str:
    return f"""\
config: {{core.https_address: "{address}", images.auto_update_interval: "0"}}
cluster: {{server_name: {name}, enabled: true}}
storage_pools: [{{name: default, driver: dir}}]
networks:
- name: testbr0
  type: bridge
  config: {{ipv4.address: 10.68.0.1/22, ipv4.nat: "true", ipv6.address: none}}
profiles:
- name: default
  devices:
    root: {{type: disk, path: /, pool: default}}
    eth0: {{type: nic, name: eth0, network: testbr0}}
"""


def _joining(address: str, token: str) -> str:
    return f'cluster: {{enabled: true, server_address: "{address}", cluster_token: "{token}"}}\n'


@contextlib.contextmanager
def running_cluster(hypervisor: Hypervisor = INCUS, size: int = 3) -> Iterator[Cluster]:
    """A cluster of ``size`` members, for as long as the block lasts."""
    cluster = Cluster(hypervisor)
    try:
        for _ in range(size):
            cluster.grow()
        yield cluster
    finally:
        cluster.stop()
