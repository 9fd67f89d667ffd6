"""A command in an instance: what is typed goes there; what it says, and its exit status, come here."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import sys
import termios
import threading
import tty
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import click

from iceshelves.cli.client import problem
from iceshelves.cli.problems import ERROR
from iceshelves.cli.servers import Server
from iceshelves.cli.text import printable
from iceshelves.core.errors import Failed, Temporary

_CHUNK: Final = 32 * 1024
_STDOUT, _STDERR = 1, 2
#: what these statuses mean where nobody says it: without a shell in between the hypervisor just gives them
_NOT_RUN: Final = {126: "may not run", 127: "has no command"}


@dataclass(frozen=True, slots=True)
class Command:
    """What to run, and how."""

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    #: numeric, as the guest knows them
    user: int = 0
    group: int = 0
    cwd: str | None = None
    #: with a terminal of its own in the guest
    terminal: bool = False
    #: whether our standard input goes to it
    stdin: bool = True

    def to_json(self) -> dict[str, Any]:
        """The first message on the wire."""
        size = shutil.get_terminal_size()
        kind_of_terminal = {"TERM": os.environ.get("TERM", "xterm")} if self.terminal else {}
        return {
            "command": list(self.argv),
            "environment": {**kind_of_terminal, **self.environment},
            "user": self.user,
            "group": self.group,
            "cwd": self.cwd,
            "terminal": [size.columns, size.lines] if self.terminal else None,
        }


class Socket(Protocol):
    """What is used of a websocket connection."""

    def send(self, message: str | bytes) -> None:
        """Send one message; safe from any thread."""

    def __iter__(self) -> Iterator[str | bytes]:
        """The messages that come in, until the other side closes."""


def run(server: Server, deployment_id: int, command: Command) -> int:
    """Run ``command`` in the deployment's instance; its exit status.

    Raises what the server answers, or :class:`Temporary` when the connection is lost.
    """
    from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
    from websockets.sync.client import connect

    url = f"ws{server.url.removeprefix('http')}/api/deployments/{deployment_id}/exec"
    headers = {"Authorization": f"Bearer {server.token.reveal()}"}
    try:
        with connect(url, additional_headers=headers, max_size=None, compression=None) as socket:
            return converse(socket, command)
    except InvalidStatus as error:
        raise problem(error.response.status_code, bytes(error.response.body or b"")) from error
    except (ConnectionClosed, InvalidHandshake, OSError, TimeoutError) as error:
        raise Temporary(
            "The connection to the instance was lost.",
            code="connection_lost",
            hint="The command may still be running there.",
        ) from error


def converse(socket: Socket, command: Command) -> int:
    """Speak the protocol of the API's ``exec`` until the command ends."""
    socket.send(json.dumps(command.to_json()))
    silent = True
    with _raw_terminal(command), _Input(socket, command):
        for message in socket:
            if isinstance(message, str):
                status = _end(json.loads(message))
                if silent and status in _NOT_RUN:
                    click.echo(f"The instance {_NOT_RUN[status]} {printable(command.argv[0])!r}.", err=True)
                return status
            silent = False
            _write(message)
    raise Temporary("The server closed the connection.", code="connection_lost")


class _Input:
    """A thread that passes on what is typed, signals, and changes of the window's size.

    Signal handlers only write a byte to a pipe that the thread reads: sending from a handler could meet a
    lock that the interrupted code holds.
    """

    def __init__(self, socket: Socket, command: Command) -> None:
        self._socket = socket
        self._command = command
        self._wakes, self._wake = os.pipe()
        self._former: dict[int, Any] = {}
        self._thread = threading.Thread(target=self._pass_on, daemon=True)

    def __enter__(self) -> None:
        os.set_blocking(self._wake, False)
        passed_on = (signal.SIGWINCH,) if self._command.terminal else (signal.SIGINT, signal.SIGTERM)
        for number in passed_on:
            self._former[number] = signal.signal(number, self._wake_up)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        os.write(self._wake, b"\0")
        self._thread.join(1.0)

    def _wake_up(self, number: int, _frame: object) -> None:
        with contextlib.suppress(BlockingIOError):  # a full pipe: the thread has enough to do
            os.write(self._wake, bytes([number]))

    def _pass_on(self) -> None:
        from websockets.exceptions import ConnectionClosed

        # a command that has ended needs no more input, and the main thread knows how it ended
        with contextlib.suppress(ConnectionClosed):
            self._pass_on_until_told()

    def _pass_on_until_told(self) -> None:
        with selectors.SelectSelector() as selector:  # unlike epoll it takes plain files, too
            selector.register(self._wakes, selectors.EVENT_READ, "wake")
            if self._command.stdin:
                selector.register(sys.stdin.fileno(), selectors.EVENT_READ, "input")
            else:
                self._socket.send(b"")
            while True:
                for key, _ in selector.select():
                    if key.data == "input":
                        data = os.read(sys.stdin.fileno(), _CHUNK)
                        self._socket.send(data)  # nothing read is the end, and an empty frame says so
                        if not data:
                            selector.unregister(sys.stdin.fileno())
                    elif not self._tell_signals(os.read(self._wakes, 64)):
                        return

    def _tell_signals(self, numbers: bytes) -> bool:
        for number in numbers:
            if number == 0:
                return False
            if number == signal.SIGWINCH:
                size = shutil.get_terminal_size()
                self._socket.send(json.dumps({"resize": [size.columns, size.lines]}))
            else:
                self._socket.send(json.dumps({"signal": number}))
        return True


@contextlib.contextmanager
def _raw_terminal(command: Command) -> Iterator[None]:
    """Every key goes to the guest unseen by our terminal, Ctrl-C included; restored at the end."""
    if not (command.terminal and command.stdin):
        yield
        return
    descriptor = sys.stdin.fileno()
    former = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, former)


def _write(message: bytes) -> None:
    stream = sys.stderr.buffer if message[:1] == bytes([_STDERR]) else sys.stdout.buffer
    stream.write(message[1:])
    stream.flush()


def _end(message: Mapping[str, Any]) -> int:
    if "exit" in message:
        status = int(message["exit"])
        return status if 0 <= status <= 255 else ERROR
    error = message.get("error") or {}
    raise Failed(
        str(error.get("message") or "The command could not be run."),
        code=error.get("code"),
        hint=error.get("hint"),
        details=error.get("details"),
    )
