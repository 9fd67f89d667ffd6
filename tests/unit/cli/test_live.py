from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from iceshelves.cli import live
from iceshelves.cli.live import LiveView


@pytest.fixture
def picture(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[LiveView], None]], str]:
    """What is left on a terminal of 60 columns after a view was used."""

    def draw(use: Callable[[LiveView], None]) -> str:
        screen = io.StringIO()
        monkeypatch.setattr(
            live,
            "Console",
            lambda **_: Console(file=screen, force_terminal=True, width=60, color_system=None),
        )
        view = LiveView(verbose=False)
        use(view)
        view.close()
        return screen.getvalue()

    return draw


STEPS = [
    {
        "name": "ensure_image",
        "status": "done",
        "started_at": "2026-01-31T12:00:00Z",
        "finished_at": "2026-01-31T12:02:05Z",
    },
    {"name": "cloud-init", "status": "failed", "message": "exit 1", "started_at": None, "finished_at": None},
    {"name": "checks", "status": "pending"},
]


def test_the_last_picture_has_every_step_with_its_mark_and_time(picture: Any) -> None:
    shown = picture(lambda view: view.operation({"steps": STEPS}))
    assert "✓ ensure image 2m05s" in shown
    assert "✗ cloud init" in shown
    assert "exit 1" in shown
    assert "checks" in shown


def test_a_running_step_shows_its_progress_and_the_guests_last_line(picture: Any) -> None:
    def use(view: LiveView) -> None:
        view.operation(
            {"steps": [{"name": "image", "status": "running", "progress": 0.42, "message": "fetching"}]}
        )
        view.log({"source": "guest", "message": "first"})
        view.log({"source": "guest", "message": "Setting up nginx\x1b[2J [bold]x[/bold]"})
        view.log({"source": "engine", "message": "ours"})
        view._live.refresh()

    shown = picture(use)
    assert "42% fetching" in shown
    assert "Setting up nginx [bold]x[/bold]" in shown
    assert "\x1b[2J [" not in shown
    assert "ours" not in shown


def test_notes_stand_above_the_steps(picture: Any) -> None:
    shown = picture(lambda view: (view.operation({"steps": STEPS}), view.note("Cancelling …")))
    assert shown.index("Cancelling …") < shown.rindex("ensure image")
