"""Where published images are: in the server's registry, or in a folder that is a registry by itself.

Commands work with a :class:`Shelf` and do not know which; what it answers is in the API's words.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, ParamSpec, Protocol, TypeVar

import click

from iceshelves.cli.app import App, pass_app

_P = ParamSpec("_P")
_R = TypeVar("_R")
#: seconds for what reads or copies whole registries
_LONG: Final = 6 * 3600.0

Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class NewImage:
    """The files of an image, and where it is to be shown."""

    metadata: Path
    rootfs: Path | None
    disk: Path | None
    channel: str
    aliases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which images to list; ``None`` means any."""

    channel: str | None
    appliance: str | None
    architecture: str | None


@dataclass(frozen=True, slots=True)
class Promotion:
    """The newest image that ``source`` shows is to be shown in ``target`` too."""

    appliance: str
    source: str
    target: str
    architecture: str | None


@dataclass(frozen=True, slots=True)
class Group:
    """The images of an appliance for an architecture in a channel."""

    appliance: str
    channel: str
    architecture: str


@dataclass(frozen=True, slots=True)
class Retention:
    """What to keep: the ``newest`` of each group, all younger than ``days``; files ``grace`` seconds more."""

    newest: int
    days: float
    grace: int


class Shelf(Protocol):
    """A registry."""

    @property
    def option(self) -> str:
        """What has to follow a command so that it means this registry, with a space before it."""

    @property
    def next_step(self) -> str:
        """The command that makes what is published reachable."""

    def images(self, wanted: Wanted, limit: int) -> list[Answer]:
        """Published images, at most ``limit`` (0: all)."""

    def publish(self, image: NewImage) -> Answer:
        """Publish an image; what became of it."""

    def promote(self, promotion: Promotion) -> list[Answer]:
        """Promote an image; what became of it, for each architecture."""

    def roll_back(self, group: Group) -> Answer:
        """Withdraw the newest image; the one before and the one now."""

    def restore(self, group: Group) -> Answer:
        """Take a roll-back back; the one before and the one now."""

    def verify(self, *, everything: bool) -> Answer:
        """Check all files, or those that were not found good before."""

    def plan_gc(self, retention: Retention) -> Answer:
        """What would go."""

    def collect(self, retention: Retention) -> Answer:
        """Remove it; what has gone."""


def shelf_option(command: Callable[_P, _R]) -> Callable[..., _R]:
    """Add ``--tree`` to a command, which gets the registry that is meant as ``shelf``."""

    @click.option(
        "--tree",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="FOLDER",
        help="A registry in this folder, instead of the server's.",
    )
    @pass_app
    @functools.wraps(command)
    def wrapped(app: App, /, *args: Any, tree: Path | None, **kwargs: Any) -> _R:
        return command(*args, shelf=_shelf(app, tree), **kwargs)  # type: ignore[arg-type]  # the added argument

    return wrapped


def _shelf(app: App, tree: Path | None) -> Shelf:
    if tree is None:
        return ServerShelf(app)
    from iceshelves.cli.folder_shelf import FolderShelf

    return FolderShelf(tree)


class ServerShelf:
    """The registry of the chosen server."""

    def __init__(self, app: App) -> None:
        self._app = app

    @property
    def option(self) -> str:
        """The server is meant anyway."""
        return ""

    @property
    def next_step(self) -> str:
        """Say how clients come to it."""
        return "iceshelves image remote-line"

    def images(self, wanted: Wanted, limit: int) -> list[Answer]:
        """Ask the server."""
        return list(self._app.client.items("/api/images", "images", limit=limit, **asdict(wanted)))

    def publish(self, image: NewImage) -> Answer:
        """Upload the files, then publish them.  Raises what :func:`upload` raises."""
        from iceshelves.cli.uploading import upload

        client = self._patient().client
        files = {"metadata": image.metadata, "rootfs": image.rootfs, "disk": image.disk}
        sent = {name: upload(client, file) for name, file in files.items() if file is not None}
        body = {**sent, "channel": image.channel, "aliases": list(image.aliases)}
        return client.post("/api/images", body)

    def promote(self, promotion: Promotion) -> list[Answer]:
        """Ask the server."""
        body = {name: value for name, value in asdict(promotion).items() if value is not None}
        return list(self._app.client.post("/api/images/promote", body)["promoted"])

    def roll_back(self, group: Group) -> Answer:
        """Ask the server."""
        return self._app.client.post("/api/images/rollback", asdict(group))

    def restore(self, group: Group) -> Answer:
        """Ask the server."""
        return self._app.client.post("/api/images/restore", asdict(group))

    def verify(self, *, everything: bool) -> Answer:
        """Ask the server."""
        query = {"everything": "true"} if everything else {}
        return self._patient().client.get("/api/images/verify", **query)

    def plan_gc(self, retention: Retention) -> Answer:
        """Ask the server."""
        return self._patient().client.post("/api/images/gc", {**asdict(retention), "dry_run": True})

    def collect(self, retention: Retention) -> Answer:
        """Ask the server."""
        return self._patient().client.post("/api/images/gc", asdict(retention))

    def _patient(self) -> App:
        """For what takes its time; the command has not talked to the server before."""
        self._app.deadline = _LONG
        return self._app
