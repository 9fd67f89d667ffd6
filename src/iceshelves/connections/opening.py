"""Which transport goes which way; one that needs a library of its own is imported when first asked for."""

from __future__ import annotations

from iceshelves.connections.transport import Transport
from iceshelves.connections.unix import UnixTransport
from iceshelves.connections.values import AgentStream, HypervisorConnection, SshSocket, TlsApi


def open_transport(connection: HypervisorConnection) -> Transport:
    """The way that ``connection`` describes; nothing is sent yet."""
    match connection:
        case TlsApi():
            from iceshelves.connections.tls import TlsTransport

            return TlsTransport(connection)
        case SshSocket():
            from iceshelves.connections.ssh import SshTransport

            return SshTransport(connection)
        case AgentStream():
            from iceshelves.connections.agent import AgentTransport

            return AgentTransport(connection)
        case _:
            return UnixTransport(connection)
