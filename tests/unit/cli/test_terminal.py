from __future__ import annotations

import json
import os
import queue
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosedOK

from iceshelves.cli.terminal import Command, converse
from iceshelves.core.errors import Failed, Temporary


class FakeSocket:
    """The server's side: says its messages one by one, and keeps what it is sent."""

    def __init__(self, *messages: Any) -> None:
        self._messages = messages
        self.sent: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def send(self, message: str | bytes) -> None:
        self.sent.put(message)

    def __iter__(self) -> Iterator[str | bytes]:
        for message in self._messages:
            yield message(self) if callable(message) else message

    def next(self) -> Any:
        return self.sent.get(timeout=5)


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The writing end of our standard input."""
    reader, writer = os.pipe()
    with os.fdopen(reader) as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        yield writer


def test_what_it_says_and_its_status_come_here(
    stdin: int, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    socket = FakeSocket(b"\x01out\xff", b"\x02err", b"\x01more", '{"exit": 42}')
    assert converse(socket, Command(("ls", "-l"), {"A": "b"}, user=1, group=2, cwd="/tmp")) == 42
    assert capsysbinary.readouterr() == (b"out\xffmore", b"err")
    assert json.loads(socket.next()) == {
        "command": ["ls", "-l"],
        "environment": {"A": "b"},
        "user": 1,
        "group": 2,
        "cwd": "/tmp",
        "terminal": None,
    }


def test_a_command_that_is_not_there_is_told(stdin: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert converse(FakeSocket('{"exit": 127}'), Command(("nosuch",), stdin=False)) == 127
    assert "has no command 'nosuch'" in capsys.readouterr().err
    converse(FakeSocket(b"\x02sh: x: not found", '{"exit": 127}'), Command(("sh",), stdin=False))
    assert "has no command" not in capsys.readouterr().err


def test_what_is_typed_goes_there_and_so_does_its_end(stdin: int) -> None:
    received: list[Any] = []

    def hear(socket: FakeSocket) -> str:
        json.loads(socket.next())
        os.write(stdin, b"typed \x00\xff")
        received.append(socket.next())
        os.close(stdin)
        received.append(socket.next())
        return '{"exit": 0}'

    assert converse(FakeSocket(hear), Command(("cat",))) == 0
    assert received == [b"typed \x00\xff", b""]


def test_input_for_a_command_that_has_ended_is_dropped_without_a_word(
    stdin: int, capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []
    monkeypatch.setattr("threading.excepthook", lambda failure: ended.append(str(failure.exc_value)))

    class ClosedSocket(FakeSocket):
        def send(self, message: str | bytes) -> None:
            super().send(message)
            if message == b"late":
                raise ConnectionClosedOK(None, None)

    def hear(socket: FakeSocket) -> str:
        socket.next()
        os.write(stdin, b"late")
        assert socket.next() == b"late"
        return '{"exit": 0}'

    assert converse(ClosedSocket(hear), Command(("true",))) == 0
    assert ended == []


def test_without_standard_input_its_end_is_told_at_once(stdin: int) -> None:
    os.write(stdin, b"for somebody else")

    def hear(socket: FakeSocket) -> str:
        socket.next()
        assert socket.next() == b""
        return '{"exit": 0}'

    assert converse(FakeSocket(hear), Command(("true",), stdin=False)) == 0
    assert os.read(sys.stdin.fileno(), 100) == b"for somebody else"


def test_ctrl_c_is_for_the_command_and_afterwards_for_us_again(stdin: int) -> None:
    before = signal.getsignal(signal.SIGINT)

    def hear(socket: FakeSocket) -> str:
        socket.next()
        os.kill(os.getpid(), signal.SIGINT)
        assert json.loads(socket.next()) == {"signal": int(signal.SIGINT)}
        return '{"exit": 130}'

    assert converse(FakeSocket(hear), Command(("sleep", "9"))) == 130
    assert signal.getsignal(signal.SIGINT) is before


def test_a_terminal_tells_its_kind_its_size_and_changes_of_it(
    stdin: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "vt220")
    monkeypatch.setenv("COLUMNS", "90")
    monkeypatch.setenv("LINES", "30")

    def hear(socket: FakeSocket) -> str:
        first = json.loads(socket.next())
        assert first["terminal"] == [90, 30]
        assert first["environment"] == {"TERM": "vt220"}
        assert socket.next() == b""
        monkeypatch.setenv("COLUMNS", "91")
        os.kill(os.getpid(), signal.SIGWINCH)
        assert json.loads(socket.next()) == {"resize": [91, 30]}
        return '{"exit": 0}'

    assert converse(FakeSocket(hear), Command(("vi",), terminal=True, stdin=False)) == 0


def test_an_error_of_the_server_is_ours(stdin: int) -> None:
    error = {"error": {"code": "guest_gone", "message": "The guest is gone.", "hint": "Start it."}}
    with pytest.raises(Failed, match="gone") as caught:
        converse(FakeSocket(json.dumps(error)), Command(("ls",)))
    assert (caught.value.code, caught.value.hint) == ("guest_gone", "Start it.")


def test_a_connection_that_ends_without_a_status_is_no_success(stdin: int) -> None:
    with pytest.raises(Temporary):
        converse(FakeSocket(b"\x01half"), Command(("ls",)))


@pytest.mark.parametrize(
    "arguments", [("exec", "web"), ("exec", "web", "--"), ("exec", "--user", "root", "web", "ls"), ("exec",)]
)
def test_wrong_usage(run: Any, one_deployment: Any, arguments: tuple[str, ...]) -> None:
    assert run(*arguments).code == 2


def test_everything_behind_the_address_is_the_commands(
    run: Any, one_deployment: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def remember(*given: Any) -> int:
        seen.append(given)
        return 3

    monkeypatch.setattr("iceshelves.cli.commands.guest.run", remember)
    assert run("exec", "--env", "A=1", "-n", "web", "--", "ls", "--help", "-n").code == 3
    assert run("exec", "web", "ls", "-l").code == 3
    assert [(number, command.argv, command.stdin) for _, number, command in seen] == [
        (7, ("ls", "--help", "-n"), False),
        (7, ("ls", "-l"), True),
    ]


def test_a_shell_needs_a_terminal(run: Any, one_deployment: Any) -> None:
    done = run("shell", "web")
    assert done.code == 1
    assert "iceshelves exec web" in done.err
