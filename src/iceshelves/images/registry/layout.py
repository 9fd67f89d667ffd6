"""Where things lie in a registry's folder, and which views its tree has.

``tree/`` is all that is served.  A view is what a client adds as a remote: the tree itself shows the stable
channel, ``CHANNEL/`` one channel and ``CHANNEL/ARCHITECTURE/`` the part of it that one machine can run.
Narrow views keep stock clients fast, whose work grows with the square of what they see.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from iceshelves.images.registry.model import STABLE

STREAMS: Final = "streams/v1"
INDEX: Final = f"{STREAMS}/index.json"
IMAGES: Final = "images"


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths below a registry's root."""

    root: Path

    @property
    def database(self) -> Path:
        """What the registry holds; catalogues are made from it."""
        return self.root / "registry.db"

    @property
    def lock(self) -> Path:
        """Held by whoever writes."""
        return self.root / "lock"

    @property
    def incoming(self) -> Path:
        """Files that are being brought in."""
        return self.root / "incoming"

    @property
    def tree(self) -> Path:
        """What is served."""
        return self.root / "tree"

    @property
    def images(self) -> Path:
        """Files named by their content, shared by all views."""
        return self.tree / IMAGES


@dataclass(frozen=True, slots=True)
class View:
    """What a client sees at ``path`` below the tree's URL; without an architecture, all of them."""

    path: str
    channel: str
    architecture: str | None = None

    @property
    def images(self) -> str:
        """The images' folder as items of this view name it: by climbing out of the view."""
        depth = self.path.count("/") + 1 if self.path else 0
        return "../" * depth + IMAGES

    @property
    def prefix(self) -> str:
        """What leads from the tree into it."""
        return f"{self.path}/" if self.path else ""

    def folder(self, tree: Path) -> Path:
        """Where its index and catalogues lie."""
        return tree / self.path / STREAMS


def views_of(channel: str, architecture: str) -> list[View]:
    """The views that show what ``channel`` has for ``architecture``."""
    wide = [View("", channel)] if channel == STABLE else []
    return [*wide, View(channel, channel), View(f"{channel}/{architecture}", channel, architecture)]


def stream_name(number: int) -> str:
    """The name of a view's catalogue; the first is called as on every other image server."""
    return "images" if number == 1 else f"images-{number}"
