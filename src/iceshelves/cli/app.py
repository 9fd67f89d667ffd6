"""What every command can ask for: the server, a client to it.  Made when asked for, and not before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from iceshelves.cli.client import Client
    from iceshelves.cli.servers import Contexts, Server


class App:
    """One run of the program.  ``connect`` makes the client of a server; tests give another one."""

    def __init__(self, connect: Callable[[Server], Client] | None = None) -> None:
        self.context_name: str | None = None
        self.deadline: float | None = None  # seconds for each answer; None: the client's own
        self._connect = connect
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        """The client of the chosen server."""
        if self._client is None:
            self._client = self.connect(self.server())
        return self._client

    def connect(self, server: Server) -> Client:
        """A client of ``server``."""
        if self._connect is not None:
            return self._connect(server)
        from iceshelves.cli.client import Client

        return Client(server) if self.deadline is None else Client(server, deadline=self.deadline)

    def server(self) -> Server:
        """The chosen server."""
        from iceshelves.cli import servers

        return servers.choose(self.contexts(), self.context_name)

    def contexts(self) -> Contexts:
        """The saved contexts."""
        from iceshelves.cli import servers

        return servers.load(self.contexts_file())

    def contexts_file(self) -> Path:
        """Where they are saved."""
        from iceshelves.cli import servers

        return servers.contexts_file()

    def close(self) -> None:
        """Hang up."""
        if self._client is not None:
            self._client.close()
            self._client = None


pass_app = click.make_pass_decorator(App, ensure=True)
