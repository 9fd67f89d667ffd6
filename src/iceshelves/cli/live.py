"""Progress on a terminal: the steps with their times, a spinner, and the guest's last line under them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from iceshelves.cli.steps import MARKS, duration, title
from iceshelves.cli.text import one_line, printable

_STYLES: Final = {
    "done": "green",
    "failed": "red",
    "cancelled": "yellow",
    "running": "bold",
    "pending": "dim",
}


class LiveView:
    """Redraws the steps in place; ``verbose`` lets all log lines scroll by above them."""

    def __init__(self, *, verbose: bool) -> None:
        self._console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._verbose = verbose
        self._operation: Mapping[str, Any] = {}
        self._last_line = ""
        self._spinner = Spinner("dots")
        self._live = Live(console=self._console, get_renderable=self._picture, refresh_per_second=8)
        self._live.start()

    def operation(self, operation: Mapping[str, Any]) -> None:
        """Remember it for the next picture."""
        self._operation = operation

    def log(self, line: Mapping[str, Any]) -> None:
        """Show it below the step that runs, or above the steps."""
        if self._verbose:
            self._console.print(Text(printable(str(line["message"]))))
        elif line.get("level") == "WARNING" and line.get("source") == "engine":
            self.note(printable(str(line["message"])))
        elif line.get("source") == "guest":
            self._last_line = one_line(str(line["message"]))

    def note(self, text: str) -> None:
        """Print it above the steps."""
        self._console.print(Text(text, style="yellow"))

    def close(self) -> None:
        """Leave the last picture on the screen."""
        self._last_line = ""
        self._live.stop()

    def _picture(self) -> RenderableType:
        steps = Table.grid(padding=(0, 1))
        steps.add_column(width=1)
        steps.add_column(no_wrap=True)
        steps.add_column(justify="right", no_wrap=True)
        steps.add_column(no_wrap=True, overflow="ellipsis", style="dim")
        for step in self._operation.get("steps", []):
            steps.add_row(*self._row(step))
        if not self._operation.get("steps"):
            return Group(Text("waiting for the server", style="dim"))
        if self._last_line:
            return Group(steps, Text(f"  {self._last_line}", style="dim", no_wrap=True, overflow="ellipsis"))
        return steps

    def _row(self, step: Mapping[str, Any]) -> tuple[RenderableType, Text, Text, Text]:
        status = str(step["status"])
        running = status == "running"
        mark: RenderableType = self._spinner if running else Text(MARKS.get(status, " "))
        message = one_line(str(step.get("message") or ""))
        if running and step.get("progress") is not None:
            message = f"{float(step['progress']):.0%} {message}"
        style = _STYLES.get(status, "")
        return mark, Text(title(step), style=style), Text(duration(step), style="dim"), Text(message)
