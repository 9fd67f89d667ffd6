"""``cluster``: its commands are imported when they run."""

from __future__ import annotations

from typing import Final

import click

from iceshelves.cli.lazy import Lazy, LazyGroup

_HERE: Final = "iceshelves.cli.commands"

SECTIONS: Final[dict[str, dict[str, Lazy]]] = {
    "Connecting": {
        "add": Lazy(f"{_HERE}.cluster_adding:add", "Add a cluster, and test it."),
        "test": Lazy(
            f"{_HERE}.cluster_looking:test",
            "Check the connection to a cluster step by step; each failure comes with its remedy.",
        ),
        "set": Lazy(
            f"{_HERE}.cluster_changing:set_",
            "Change a cluster's address, project, description, limit, options or agent.",
        ),
        "delete": Lazy(f"{_HERE}.cluster_changing:delete", "Forget a cluster; nothing on it is touched."),
    },
    "Trust": {
        "certificate": Lazy(
            f"{_HERE}.cluster_changing:certificate",
            "Print what a cluster has to trust: our client certificate, or our SSH public key.",
        ),
        "accept-certificate": Lazy(
            f"{_HERE}.cluster_changing:accept_certificate",
            "Trust the certificate that a cluster's server shows now, in place of the former one.",
        ),
        "accept-host-key": Lazy(
            f"{_HERE}.cluster_changing:accept_host_key",
            "Trust the SSH host key that a cluster's server shows now, in place of the former one.",
        ),
        "rotate": Lazy(
            f"{_HERE}.cluster_changing:rotate",
            "Renew our client certificate or SSH key to a cluster, or its agent's key.",
        ),
    },
    "Looking": {
        "list": Lazy(f"{_HERE}.cluster_looking:list_clusters", "List clusters."),
        "show": Lazy(
            f"{_HERE}.cluster_looking:show",
            "Show a cluster: how it is reached, its health, members and resources.",
        ),
    },
    "Agents": {
        "enroll": Lazy(
            f"{_HERE}.cluster_agents:enroll", "Print the line that makes a machine the cluster's agent."
        ),
        "revoke-agent": Lazy(f"{_HERE}.cluster_agents:revoke_agent", "Shut a cluster's agent out."),
    },
    "Instances": {
        "scan": Lazy(
            f"{_HERE}.instances:scan",
            "Look which instances of a cluster are ours, and which are not; nothing is changed.",
        ),
        "adopt": Lazy(
            f"{_HERE}.instances:adopt",
            "Mark instances that we have not made as known to us; nothing else of them is changed.",
        ),
        "release": Lazy(
            f"{_HERE}.instances:release",
            "Take the mark of adoption away from instances; nothing else of them is changed.",
        ),
    },
    "Members": {
        "members": Lazy(
            f"{_HERE}.cluster_members:members",
            "List a cluster's members: how they are, and what room each has.",
        ),
        "evacuate": Lazy(
            f"{_HERE}.cluster_members:evacuate", "Move the instances of a member away, and place none there."
        ),
        "restore": Lazy(
            f"{_HERE}.cluster_members:restore",
            "Take an evacuated member into use again, and bring its instances back.",
        ),
    },
}


@click.group(cls=LazyGroup, sections=SECTIONS)
def cluster() -> None:
    """Connect, look at, change and test clusters."""
