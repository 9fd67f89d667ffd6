"""Building an image on the server and following it to its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click

from iceshelves.cli.app import App
from iceshelves.cli.output import Output, facts
from iceshelves.cli.problems import ERROR
from iceshelves.cli.recipes import Recipe, fits, read_lock, write_lock
from iceshelves.cli.steps import duration
from iceshelves.cli.text import printable
from iceshelves.cli.watch import follow
from iceshelves.core.units import format_size


@dataclass(frozen=True, slots=True)
class Wishes:
    """How to build, and what for; ``None`` leaves it to the recipe or the server, or leaves it out."""

    architecture: str | None = None
    types: tuple[str, ...] = ()
    fast: bool = False
    gate: str | None = None
    channel: str | None = None
    timeout: float | None = None

    def body(self) -> dict[str, Any]:
        """The part of a request that says it."""
        wanted = {
            "architecture": self.architecture,
            "types": list(self.types),
            "compression": "fast" if self.fast else None,
            "gate": self.gate,
            "channel": self.channel,
            "timeout": self.timeout,
        }
        return {name: value for name, value in wanted.items() if value not in (None, [])}


@dataclass(frozen=True, slots=True)
class Order:
    """What to build and how, ``lock`` being the packages that it has to have."""

    recipe: Recipe
    wishes: Wishes
    lock: str | None = None

    def body(self) -> dict[str, Any]:
        """The request that says it.  Raises like :meth:`Recipe.body`."""
        lock = {} if self.lock is None else {"lock": self.lock}
        return {**self.recipe.body(), **self.wishes.body(), **lock}


@dataclass(frozen=True, slots=True)
class Waiting:
    """Whether to wait for the work, and how much of it to show."""

    wait: bool
    verbose: bool


def kept_lock(recipe: Recipe, architecture: str | None) -> str | None:
    """The lock beside a recipe, which is told; ``None`` where there is none for this architecture."""
    if recipe.lock is None or not recipe.lock.exists():
        return None
    lock = read_lock(recipe.lock)
    if not fits(lock, architecture):
        click.echo(f"{recipe.lock} is for another architecture: building without it.", err=True)
        return None
    click.echo(f"Building what {recipe.lock} says.", err=True)
    return lock


def carry_out(app: App, order: Order, waiting: Waiting, output: Output) -> tuple[int, dict[str, Any]]:
    """Have an image built.  The exit status, and the build: an empty one where nobody waits for it."""
    accepted = app.client.post("/api/builds", order.body())
    number, operation_id = accepted["build_id"], str(accepted["operation_id"])
    if not waiting.wait:
        output.one(
            accepted,
            lambda: (
                f"Build {number} of {accepted['appliance']}: accepted.  "
                f"Watch it with: iceshelves operation watch {operation_id}"
            ),
        )
        return 0, {}
    status = follow(app, operation_id, verbose=waiting.verbose)
    build = app.client.get(f"/api/builds/{number}")
    if status == 0 or not output.is_for_people:
        output.one(build, lambda: _good_news(order, build))
    elif status == ERROR:
        click.echo(f"Next:  iceshelves image logs {number}", err=True)
    return status, build


def keep_lock(recipe: Recipe, build: Mapping[str, Any], *, replacing: bool) -> None:
    """Write the lock of a build beside its recipe, unless one is there that is not to be replaced."""
    lock = build.get("lock")
    if lock is None or recipe.lock is None or (recipe.lock.exists() and not replacing):
        return
    write_lock(recipe.lock, str(lock))
    click.echo(f"Wrote {recipe.lock}: with it, the same image is built again.", err=True)


def build_text(build: Mapping[str, Any]) -> str:
    """A build, for people."""
    error = build.get("error") or {}
    gate = build.get("gate") or {}
    return facts(
        [
            ("Id", build["id"]),
            ("Appliance", f"{build['appliance']} {_result(build).get('version') or ''}".strip()),
            ("Architecture", build["architecture"]),
            ("Types", build["types"]),
            ("Compression", build["compression"]),
            ("Status", build["status"]),
            *_made(build),
            ("Gate", gate.get("name")),
            ("Channel", _published(build)),
            ("Operation", build["operation_id"]),
            ("Created", f"{build['created_on']} by {build['created_by']}"),
            ("Error", error.get("message")),
            ("Hint", error.get("hint")),
        ]
    )


def duration_of(build: Mapping[str, Any]) -> str:
    """How long a build has taken; empty before it began."""
    return duration({"started_at": build.get("started_at"), "finished_at": build.get("completed_at")})


def _good_news(order: Order, build: Mapping[str, Any]) -> str:
    result = _result(build)
    taken = duration_of(build)
    built = f"{build['appliance']} {result.get('version') or ''} for {build['architecture']} is built"
    return "\n".join(
        [
            click.style(
                printable(f"{built} after {taken}." if taken else f"{built}."), fg="green", bold=True
            ),
            facts(
                [
                    *_made(build),
                    ("Healthy on", (build.get("gate") or {}).get("name")),
                    ("Published in", _published(build)),
                    ("Next", _next(order, build)),
                ]
            ),
        ]
    )


def _made(build: Mapping[str, Any]) -> list[tuple[str, object]]:
    """What the build has made: a line for each image."""
    result = _result(build)
    images = [
        f"{image['fingerprint']} ({image['type']}, {format_size(int(image['size']))})"
        for image in result.get("images") or []
    ]
    return [
        ("Image", "\n".join(images)),
        ("Serial", result.get("serial")),
        ("Packages", result.get("packages")),
    ]


def _published(build: Mapping[str, Any]) -> str:
    channel = str(build.get("channel") or "")
    outcome = (_result(build).get("published") or {}).get("outcome")
    return f"{channel}, which shows this very image already" if outcome == "unchanged" else channel


def _next(order: Order, build: Mapping[str, Any]) -> str:
    channel, name = build.get("channel"), build["appliance"]
    if channel is None:
        return f"iceshelves image build {order.recipe.name}"
    if channel != "stable":
        return f"iceshelves image promote {name} --from {channel}"
    return f"iceshelves image remote-line   iceshelves image list --appliance {name}"


def _result(build: Mapping[str, Any]) -> Mapping[str, Any]:
    return build.get("result") or {}
