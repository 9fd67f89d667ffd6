"""Live names for the shell's completion.  A server that is away or slow completes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from iceshelves.cli.app import App
from iceshelves.core.errors import IceShelvesError

if TYPE_CHECKING:
    import click

    from iceshelves.cli.client import Client

_AT_MOST: Final = 200
_DEADLINE: Final = 2.0

Names = Callable[["click.Context", "click.Parameter", str], list[str]]


def _from_server(read: Callable[[Client], Iterator[str]]) -> Names:
    def complete(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
        app = ctx.ensure_object(App)
        app.deadline = _DEADLINE
        app.context_name = ctx.find_root().params.get("context_name")
        try:
            return [name for name in read(app.client) if name.startswith(incomplete)]
        except IceShelvesError:  # there is nowhere to say it: the user is in the middle of typing
            return []
        finally:
            app.close()

    return complete


@_from_server
def complete_deployment(client: Client) -> Iterator[str]:
    """``cluster:name`` of the living deployments."""
    for entry in client.items("/api/deployments", "deployments", limit=_AT_MOST):
        yield f"{entry['cluster']['name']}:{entry['instance_name']}"


@_from_server
def complete_cluster(client: Client) -> Iterator[str]:
    """The clusters."""
    for entry in client.items("/api/clusters", "clusters", limit=_AT_MOST):
        yield str(entry["name"])


def complete_member(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The members of the cluster that stands before."""
    members = f"/api/clusters/{ctx.params.get('name')}/members"
    read = _from_server(lambda client: (str(entry["name"]) for entry in client.items(members, "members")))
    return read(ctx, param, incomplete)


@_from_server
def complete_new_place(client: Client) -> Iterator[str]:
    """The clusters, with the colon before the name that is still to be thought of."""
    for entry in client.items("/api/clusters", "clusters", limit=_AT_MOST):
        yield f"{entry['name']}:"


@_from_server
def complete_egg(client: Client) -> Iterator[str]:
    """The eggs of the library."""
    for entry in client.items("/api/eggs", "eggs", limit=_AT_MOST):
        yield str(entry["name"])


@_from_server
def complete_appliance(client: Client) -> Iterator[str]:
    """The built-in appliances."""
    for entry in client.items("/api/appliances", "appliances", limit=_AT_MOST):
        yield str(entry["name"])


@_from_server
def complete_image(client: Client) -> Iterator[str]:
    """The appliances that have published images."""
    entries = client.items("/api/images", "images", limit=_AT_MOST)
    yield from sorted({str(entry["appliance"]) for entry in entries})


@_from_server
def complete_build(client: Client) -> Iterator[str]:
    """The builds, the newest first."""
    for entry in client.items("/api/builds", "builds", limit=_AT_MOST):
        yield str(entry["id"])


@_from_server
def complete_operation(client: Client) -> Iterator[str]:
    """The operations that are not over."""
    for status in ("running", "pending"):
        for entry in client.items("/api/operations", "operations", limit=_AT_MOST, status=status):
            yield str(entry["id"])


@_from_server
def complete_user(client: Client) -> Iterator[str]:
    """The users."""
    for entry in client.items("/api/users", "users", limit=_AT_MOST):
        yield str(entry["name"])


def complete_context(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """The saved contexts."""
    try:
        names = ctx.ensure_object(App).contexts().servers
    except IceShelvesError:
        return []
    return [name for name in names if name.startswith(incomplete)]
