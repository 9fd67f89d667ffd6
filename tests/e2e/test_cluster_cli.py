"""Adding a cluster in conversation, on a real terminal: nothing is trusted unasked, no secret is echoed."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import ssl
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from iceshelves.connections.certificates import fingerprint
from testbed.certificates import Order, make
from testbed.server import Server, running_server

_PROJECT = {"name": "default", "config": {}}


@dataclass
class Daemon:
    """What answers as a lone Incus would to somebody who asks who it is.  ``trusts`` is up to the test."""

    folder: Path
    trusts: bool = False
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        made = make(Order(hosts=("127.0.0.1",)))
        self.fingerprint = fingerprint(made.pem)
        file = self.folder / "server.pem"
        file.write_text(made.pem + made.key_pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.server.server_port}"

    def answer(self, path: str) -> Any:
        """The value at ``path``, or ``None``."""
        self.asked.append(path)
        server = {
            "auth": "trusted" if self.trusts else "untrusted",
            "api_version": "1.0",
            "environment": {
                "server": "incus",
                "server_version": "6.0.4",
                "server_name": "hv",
                "driver": "lxc",
            },
        }
        lists = {"/1.0/instances": [], "/1.0/projects": [_PROJECT]}
        return {"/1.0": server, "/1.0/projects/default": _PROJECT, **lists}.get(path)


def _handler(daemon: Daemon) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            found = daemon.answer(self.path.partition("?")[0])
            envelope = {"type": "sync", "metadata": found}
            if found is None:
                envelope = {"type": "error", "error": "not found", "error_code": 404}
            body = json.dumps(envelope).encode()
            self.send_response(200 if found is not None else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    return Handler


def _take_the_terminal() -> None:
    """Have Ctrl-C mean something, also where these tests run in the background, which ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Conversation:
    """``iceshelves`` on a terminal of its own."""

    def __init__(self, server: Server, *arguments: str) -> None:
        self.said = ""
        self._terminal, theirs = pty.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "iceshelves", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={
                **os.environ,
                "ICESHELVES_SERVER": f"http://{server.address}/iceshelves",
                "ICESHELVES_TOKEN": server.token,
                "NO_COLOR": "1",
                "TERM": "dumb",
            },
            start_new_session=True,
            preexec_fn=_take_the_terminal,
        )
        os.close(theirs)

    def hear(self, words: str) -> None:
        """Wait until it has said ``words``, and forget what came before."""
        until = time.monotonic() + 20
        while words not in self.said:
            assert time.monotonic() < until, f"{words!r} was not said: {self.said}"
            assert self._read(), f"it ended without {words!r}: {self.said}"
        self.said = self.said.partition(words)[2]

    def say(self, words: str) -> None:
        """Type a line."""
        os.write(self._terminal, f"{words}\n".encode())

    def end(self) -> tuple[int, str]:
        """Its exit status, and what it said last."""
        until = time.monotonic() + 20
        while self._read():
            assert time.monotonic() < until, self.said
        return self._process.wait(10), self.said

    def close(self) -> None:
        """Hang up."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._terminal)

    def _read(self) -> bool:
        if not select.select([self._terminal], [], [], 0.1)[0]:
            return True
        try:
            data = os.read(self._terminal, 4096)
        except OSError:  # the other side of the terminal is gone
            return False
        self.said += data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("conversation")) as running:
        yield running


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path)
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def talk(server: Server) -> Iterator[Any]:
    begun: list[Conversation] = []

    def begin(*arguments: str) -> Conversation:
        begun.append(Conversation(server, *arguments))
        return begun[-1]

    yield begin
    for conversation in begun:
        conversation.close()


def choose_direct_by_hand(conversation: Conversation, daemon: Daemon) -> None:
    conversation.hear("What runs there?")
    conversation.say("1")
    conversation.hear("How does this server reach it?")
    conversation.say("2")
    conversation.hear("How does it come to trust this server?")
    conversation.hear("Choose")
    conversation.say("2")
    conversation.hear("Its address")
    conversation.say(daemon.url)


def test_a_cluster_is_added_in_conversation(talk: Any, daemon: Daemon) -> None:
    conversation = talk("cluster", "add", "talked")
    choose_direct_by_hand(conversation, daemon)
    conversation.hear(daemon.fingerprint)
    conversation.hear("Is it the same")
    assert daemon.asked == []  # nothing is sent before somebody vouches for it
    conversation.say("y")
    conversation.hear("-----BEGIN CERTIFICATE-----")
    conversation.hear("Press Enter when that is done")
    daemon.trusts = True
    conversation.say("")
    status, said = conversation.end()
    assert status == 0, said
    for check in ("name", "tcp", "certificate", "authentication", "rights", "version", "members", "expiry"):
        assert f"✓ {check}" in said, said


def test_enter_alone_vouches_for_nothing(talk: Any, daemon: Daemon, server: Server) -> None:
    conversation = talk("cluster", "add", "unsure")
    choose_direct_by_hand(conversation, daemon)
    conversation.hear("Is it the same")
    conversation.say("")
    status, said = conversation.end()
    assert (status, "not_confirmed" in said) == (1, True)
    assert daemon.asked == []
    assert server.call("GET", "/clusters/unsure").status == 404


def test_a_password_is_not_echoed(talk: Any, daemon: Daemon) -> None:
    conversation = talk(
        *("cluster", "add", "hushed", "--provider", "lxd", "--direct", daemon.url),
        *("--fingerprint", daemon.fingerprint, "--password"),
    )
    conversation.hear("Trust password")
    conversation.say("open-sesame")
    status, said = conversation.end()
    assert status == 1  # this daemon takes none
    assert "open-sesame" not in said


def test_ctrl_c_leaves_no_cluster(talk: Any, daemon: Daemon, server: Server) -> None:
    conversation = talk("cluster", "add", "left")
    choose_direct_by_hand(conversation, daemon)
    conversation.hear("Is it the same")
    os.write(conversation._terminal, b"\x03")
    status, said = conversation.end()
    assert status == 130, said
    assert server.call("GET", "/clusters/left").status == 404
