"""Waiting for an operation: its events go to a view, Ctrl-C cancels it, and Ctrl-C again stops waiting."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import click

from iceshelves.cli.app import App
from iceshelves.cli.client import Client, segment
from iceshelves.cli.events import Feed
from iceshelves.cli.problems import ERROR, INTERRUPTED, report
from iceshelves.cli.text import printable
from iceshelves.core.errors import Cancelled, Conflict, Failed, IceShelvesError, Temporary, TimedOut

_GUEST_LINES: Final = 15


class View(Protocol):
    """Shows an operation as it goes on."""

    def operation(self, operation: Mapping[str, Any]) -> None:
        """Its state has changed."""

    def log(self, line: Mapping[str, Any]) -> None:
        """A line was added to its log."""

    def note(self, text: str) -> None:
        """Something about the watching itself."""

    def close(self) -> None:
        """It is over."""


@dataclass(frozen=True)
class Outcome:
    """How the waiting ended: with the operation, or (``None``) because the user detached."""

    operation: Mapping[str, Any] | None
    guest_lines: tuple[str, ...] = ()


def follow(app: App, operation_id: str, *, verbose: bool = False) -> int:
    """Show the operation until it ends and return the exit status: 0, 1 or 130.

    What went wrong is told on standard error, the guest's own last words included.
    """
    view = view_for_terminal(verbose=verbose)
    try:
        outcome = watch(app.client, operation_id, view)
    except (Temporary, TimedOut) as error:
        error.hint = f"It goes on without you. See: iceshelves operation watch {operation_id}"
        raise
    finally:
        view.close()
    if outcome.operation is None:  # the first Ctrl-C has asked the server to cancel
        click.echo("Not waiting for the end of the cancelling.  Come back with:", err=True)
        click.echo(f"  iceshelves operation watch {operation_id}", err=True)
        return INTERRUPTED
    return tell_end(outcome)


def watch(client: Client, operation_id: str, view: View) -> Outcome:
    """Feed ``view`` until the operation ends or the user detaches."""
    watcher = _Watcher(view)
    feed = Feed(
        client,
        f"/api/operations/{segment(operation_id)}/events",
        on_loss=lambda why: view.note(f"{why} Reconnecting …"),
    )
    asked = False
    while True:
        try:
            if asked:
                _cancel(client, operation_id, view)
            for event in feed:
                watcher.take(event.name, event.data)
            return watcher.outcome()
        except KeyboardInterrupt:
            if asked:
                return Outcome(None)
            asked = True
            view.note("Cancelling …  (Ctrl-C again does not wait for it)")


def tell_end(outcome: Outcome) -> int:
    """Report an operation that did not succeed; the exit status."""
    operation = outcome.operation or {}
    status = operation.get("status")
    if status == "succeeded":
        return 0
    failure = failure_of(operation)
    if status == "cancelled":
        click.echo(printable(failure.message), err=True)  # as somebody wished: no error
        if failure.hint:
            click.echo(printable(failure.hint), err=True)
        return INTERRUPTED
    quote_guest(failure, outcome.guest_lines)
    report(failure)
    return ERROR


def quote_guest(failure: IceShelvesError, last_lines: Sequence[str] = ()) -> None:
    """Print what the guest said about ``failure``, as it said it; where it said nothing, its last lines."""
    said = failure.details.get("guest")
    lines = [str(line) for line in said] if isinstance(said, list) and said else list(last_lines)
    if lines:
        click.echo("The guest said:", err=True)
        for line in lines[-_GUEST_LINES:]:
            click.echo(f"  {printable(line)}", err=True)


def failure_of(operation: Mapping[str, Any]) -> IceShelvesError:
    """The error that an operation ended with."""
    kind = {"cancelled": Cancelled, "timeout": TimedOut}.get(str(operation.get("status")), Failed)
    error = operation.get("error") or {}
    message = error.get("message") or f"The operation ended as {operation.get('status')}."
    return kind(str(message), code=error.get("code"), hint=error.get("hint"), details=error.get("details"))


def view_for_terminal(*, verbose: bool) -> View:
    """A live view where standard error is a terminal, else one plain line for each change."""
    if sys.stderr.isatty():
        from iceshelves.cli.live import LiveView

        return LiveView(verbose=verbose)
    from iceshelves.cli.plain import PlainView

    return PlainView(verbose=verbose)


class _Watcher:
    """Remembers what is needed at the end, and passes each thing on once."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._operation: Mapping[str, Any] | None = None
        self._last_log = 0
        self._guest: list[str] = []

    def take(self, name: str, data: Any) -> None:
        if name == "operation":
            self._operation = data
            self._view.operation(data)
        elif name == "log" and int(data["id"]) > self._last_log:
            self._last_log = int(data["id"])
            # cloud-init's tables of networks and keys fill the screen and tell nothing
            if data.get("source") == "guest" and not str(data["message"]).startswith("ci-info:"):
                self._guest = [*self._guest[1 - _GUEST_LINES :], str(data["message"])]
            self._view.log(data)

    def outcome(self) -> Outcome:
        if self._operation is None:
            raise Failed("The server told nothing of the operation.", code="unexpected_answer")
        return Outcome(self._operation, tuple(self._guest))


def _cancel(client: Client, operation_id: str, view: View) -> None:
    try:
        client.post(f"/api/operations/{segment(operation_id)}/cancel")
    except Conflict as error:  # it has just ended, or is cancelled already
        view.note(error.message)
