"""``deploy``, ``update``, ``rollback`` and ``retry``: what makes or changes an instance, and waits for it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import click

from iceshelves.cli.address import Place, deployment_id, find_deployment, new_place, place_of
from iceshelves.cli.app import App, pass_app
from iceshelves.cli.completion import complete_deployment, complete_egg, complete_new_place
from iceshelves.cli.eggs import egg_in_library, named
from iceshelves.cli.output import Output, facts, output_options
from iceshelves.cli.problems import ERROR
from iceshelves.cli.steps import duration
from iceshelves.cli.values import Duration, assignments, mapping_from_file, overrides
from iceshelves.cli.watch import follow

_P = ParamSpec("_P")
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True)
class Waiting:
    """Whether to wait for the work, and how much of it to show."""

    wait: bool
    verbose: bool


def _waiting_options(command: Callable[_P, _R]) -> Callable[..., _R]:
    @click.option("--no-wait", is_flag=True, help="Return as soon as the server has accepted the work.")
    @click.option("-v", "--verbose", is_flag=True, help="Show all log lines, the guest's included.")
    @functools.wraps(command)
    def wrapped(*args: Any, no_wait: bool, verbose: bool, **kwargs: Any) -> _R:
        return command(*args, waiting=Waiting(not no_wait, verbose), **kwargs)  # type: ignore[arg-type]

    return wrapped


def _wish_options(command: Callable[_P, _R]) -> Callable[..., _R]:
    """What ``deploy`` and ``update`` have in common; the command gets it as ``wishes``, in API terms."""

    @click.option(
        "-p", "--parameter", "pairs", multiple=True, metavar="KEY=VALUE", help="A parameter of the egg."
    )
    @click.option(
        "--param-file",
        metavar="FILE",
        help="Parameters from a YAML or JSON file, secrets above all; '-' is stdin.",
    )
    @click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="KEY=VALUE",
        help="Override a key: limits.cpu=2 is the hypervisor's, timezone=UTC is cloud-init's.",
    )
    @click.option("--cloud-config", metavar="FILE", help="Override cloud-init keys from a YAML file.")
    @click.option("--image", metavar="IMAGE", help="Another image than the egg's.")
    @click.option("--timeout", type=Duration(), help="How long it may take, such as 90s or 10m.")
    @click.option(
        "--on-failure",
        type=click.Choice(["keep", "cleanup"]),
        help="Keep what was made for a look, or remove it.  [default: keep]",
    )
    @functools.wraps(command)
    def wrapped(
        *args: Any,
        pairs: tuple[str, ...],
        param_file: str | None,
        settings: tuple[str, ...],
        cloud_config: str | None,
        image: str | None,
        timeout: float | None,
        on_failure: str | None,
        **kwargs: Any,
    ) -> _R:
        from_file = mapping_from_file(param_file, "Parameters") if param_file else {}
        wishes = {
            "parameters": {**from_file, **assignments(pairs, "-p")},
            "config_overrides": overrides(settings, cloud_config),
            "image": image,
            "timeout": timeout,
            "on_failure": on_failure,
        }
        return command(*args, wishes=_given(wishes), **kwargs)  # type: ignore[arg-type]  # the added argument

    return wrapped


@click.command()
@click.argument("egg", shell_complete=complete_egg)
@click.argument("address", metavar="CLUSTER:NAME", shell_complete=complete_new_place)
@_wish_options
@click.option("--vm", is_flag=True, help="A virtual machine instead of a container.")
@click.option(
    "--member", metavar="NAME", help="The member to place it on; 'auto' has most room.  [default: auto]"
)
@click.option(
    "--profile", "profiles", metavar="NAME", multiple=True, help="A profile of the cluster; may be repeated."
)
@_waiting_options
@output_options
@pass_app
def deploy(
    app: App,
    egg: str,
    address: str,
    wishes: dict[str, Any],
    vm: bool,
    member: str | None,
    profiles: tuple[str, ...],
    waiting: Waiting,
    output: Output,
) -> int:
    """Turn an egg into a running, configured instance.

    EGG is one of the library (NAME or NAME@VERSION), or a directory or .egg file (with a '/' or '.egg' in
    it), which is imported first.  Where there is one cluster only, NAME alone will do.

    It is ready when the guest says so: cloud-init has succeeded and the egg's checks pass.  Ctrl-C cancels
    the work and takes back what was made; Ctrl-C again does not wait for the end of that.
    """
    place = new_place(app.client, address)
    body = {
        "egg": egg_in_library(app.client, egg),
        "cluster": place.cluster,
        "instance_name": place.name,
        "target_member": member,
        "kind": "virtual-machine" if vm else None,
        "profiles": list(profiles),
        **wishes,
    }
    with named(app.client, egg):
        accepted = app.client.post("/api/deploy", _given(body))
    return _carry_out(app, place, accepted, waiting, output)


@click.command()
@click.argument("address", metavar="CLUSTER:NAME", shell_complete=complete_deployment)
@click.argument("egg", required=False, shell_complete=complete_egg)
@_wish_options
@_waiting_options
@output_options
@pass_app
def update(
    app: App, address: str, egg: str | None, wishes: dict[str, Any], waiting: Waiting, output: Output
) -> int:
    """Put a new revision in place of the present one.

    Addresses and volumes are kept.  EGG is another version, or another egg; without it only what you give
    changes.  Parameters that are not given keep their values.
    """
    deployment = find_deployment(app.client, address)
    body = _given({"egg": egg_in_library(app.client, egg) if egg else None, **wishes})
    with named(app.client, egg or ""):
        accepted = app.client.post(f"/api/deployments/{deployment['id']}/update", body)
    return _carry_out(app, place_of(deployment), accepted, waiting, output)


@click.command()
@click.argument("address", metavar="CLUSTER:NAME", shell_complete=complete_deployment)
@click.option(
    "--revision",
    type=click.IntRange(min=1),
    metavar="N",
    help="Which one.  [default: the last that was completed]",
)
@_waiting_options
@output_options
@pass_app
def rollback(app: App, address: str, revision: int | None, waiting: Waiting, output: Output) -> int:
    """Go back to an earlier revision.

    It gets the image and the parameters that it had.
    """
    deployment = find_deployment(app.client, address)
    accepted = app.client.post(
        f"/api/deployments/{deployment['id']}/rollback", _given({"revision": revision})
    )
    return _carry_out(app, place_of(deployment), accepted, waiting, output)


@click.command()
@click.argument("address", metavar="CLUSTER:NAME", shell_complete=complete_deployment)
@_waiting_options
@output_options
@pass_app
def retry(app: App, address: str, waiting: Waiting, output: Output) -> int:
    """Try a failed or cancelled deployment again.

    What is there already is kept.
    """
    deployment = find_deployment(app.client, address)
    accepted = app.client.post(f"/api/deployments/{deployment['id']}/retry")
    return _carry_out(app, place_of(deployment), accepted, waiting, output)


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` without those that nobody gave."""
    return {name: value for name, value in values.items() if value not in (None, [], {})}


def _carry_out(app: App, place: Place, accepted: Mapping[str, Any], waiting: Waiting, output: Output) -> int:
    """Wait for accepted work if that is wanted, and say what there is now."""
    operation_id = str(accepted["operation_id"])
    if not waiting.wait:
        output.one(
            accepted, lambda: f"{place}: accepted.  Watch it with: iceshelves operation watch {operation_id}"
        )
        return 0
    status = follow(app, operation_id, verbose=waiting.verbose)
    number = accepted.get("deployment_id") or deployment_id(app.client, str(place))
    deployment = app.client.get(f"/api/deployments/{number}")
    if status == 0 or not output.is_for_people:
        output.one(deployment, lambda: _good_news(place, deployment))
    elif (successor := _successor(deployment, operation_id)) is not None:
        click.echo("The last good revision is being put back.  Watch it with:", err=True)
        click.echo(f"  iceshelves operation watch {successor}", err=True)
    elif status == ERROR:
        click.echo(f"Next:  iceshelves logs {place}   iceshelves retry {place}", err=True)
    return status


def _successor(deployment: Mapping[str, Any], operation_id: str) -> str | None:
    """The operation that the server began by itself after ``operation_id``, if it did."""
    latest = deployment.get("operation") or {}
    going_on = latest.get("status") in ("pending", "running") and latest.get("id") != operation_id
    return str(latest["id"]) if going_on else None


def _good_news(place: Place, deployment: Mapping[str, Any]) -> str:
    info = deployment.get("instance_info") or {}
    egg = deployment.get("egg") or {}
    taken = duration(deployment.get("operation") or {})
    headline = f"{place} is ready" + (f" after {taken}." if taken else ".")
    return "\n".join(
        [
            click.style(headline, fg="green", bold=True),
            facts(
                [
                    ("Egg", f"{egg.get('name')} {egg.get('version') or ''}".strip()),
                    ("Revision", deployment.get("revision")),
                    ("Address", [*(info.get("ipv4") or []), *(info.get("ipv6") or [])]),
                    ("Next", f"iceshelves shell {place}   iceshelves logs {place}   iceshelves show {place}"),
                ]
            ),
        ]
    )
