"""How a user names things: ``cluster:name``, a name alone where that is unambiguous, or a number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from iceshelves.cli.client import Client, segment
from iceshelves.cli.suggest import did_you_mean
from iceshelves.core.errors import InvalidInput, NotFound
from iceshelves.core.names import check_instance_name

_LOOKED_THROUGH: Final = 1000  # deployments, for one that is spelt alike


@dataclass(frozen=True, slots=True)
class Place:
    """A cluster and the name of an instance on it."""

    cluster: str
    name: str

    def __str__(self) -> str:
        return f"{self.cluster}:{self.name}"


def place_of(deployment: dict[str, Any]) -> Place:
    """Where ``deployment`` is."""
    return Place(str(deployment["cluster"]["name"]), str(deployment["instance_name"]))


def new_place(client: Client, address: str) -> Place:
    """Where a new instance goes; without a cluster, on the only one.

    Raises :class:`InvalidInput`, or :class:`NotFound` for a cluster that is not there.
    """
    cluster, separator, name = address.rpartition(":")
    if separator and not (cluster and name):
        raise InvalidInput(
            f"{address!r} is not an address.",
            code="invalid_address",
            hint="Write CLUSTER:NAME, such as local:web.",
        )
    check_instance_name(name)
    return Place(_known(client, cluster) if cluster else _only_cluster(client, name), name)


def find_deployment(client: Client, address: str) -> dict[str, Any]:
    """The deployment at ``address``, with everything that the server tells of it.

    Raises :class:`NotFound`, or :class:`InvalidInput` when several have that name.
    """
    return client.get(f"/api/deployments/{deployment_id(client, address)}")


def deployment_id(client: Client, address: str) -> int:
    """The number of the deployment at ``address``.  Raises like :func:`find_deployment`."""
    if address.isdecimal():
        return int(address)
    cluster, _, name = address.rpartition(":")
    query = {"name": name} | ({"cluster": cluster} if cluster else {})
    found = list(client.items("/api/deployments", "deployments", limit=10, **query))
    if len(found) == 1:
        return int(found[0]["id"])
    if found:
        raise InvalidInput(
            f"Several instances are called {name!r}: {', '.join(str(place_of(each)) for each in found)}.",
            code="ambiguous_address",
            hint="Write the cluster too: CLUSTER:NAME.",
        )
    where = f" on {cluster}" if cluster else ""
    raise NotFound(
        f"No deployment is called {name!r}{where}.",
        code="deployment_not_found",
        hint=_alike(client, name) or "See what there is with 'iceshelves list'.",
    )


def _alike(client: Client, name: str) -> str | None:
    entries = client.items("/api/deployments", "deployments", limit=_LOOKED_THROUGH)
    places = {str(entry["instance_name"]): str(place_of(entry)) for entry in entries}
    return places[name].join(("Did you mean ", "?")) if name in places else did_you_mean(name, places)


def _known(client: Client, cluster: str) -> str:
    try:
        client.get(f"/api/clusters/{segment(cluster)}")
    except NotFound as error:
        names = (str(each["name"]) for each in client.items("/api/clusters", "clusters"))
        error.hint = did_you_mean(cluster, names) or error.hint
        raise
    return cluster


def _only_cluster(client: Client, name: str) -> str:
    names = [str(cluster["name"]) for cluster in client.items("/api/clusters", "clusters", limit=10)]
    if len(names) == 1:
        return names[0]
    if not names:
        raise NotFound(
            "There is no cluster yet.",
            code="no_cluster",
            hint="Add one: iceshelves cluster add local --socket /var/lib/incus/unix.socket",
        )
    raise InvalidInput(
        f"There are several clusters: {', '.join(names)}.",
        code="ambiguous_address",
        hint=f"Say on which: {names[0]}:{name}",
    )
