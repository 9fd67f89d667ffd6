"""What can go wrong on the way through SSH, in words that say where and how to mend it."""

from __future__ import annotations

import errno
import os
import socket
from typing import Final

from iceshelves.connections.ssh_keys import fingerprint
from iceshelves.connections.values import SshHop
from iceshelves.core.errors import Denied, Failed, InvalidInput, Temporary

_CHECK_WAY: Final = "Check the address, that sshd runs there, and that no firewall is between."


def name_of(hop: SshHop) -> str:
    """``user@host:port``."""
    host = f"[{hop.host}]" if ":" in hop.host else hop.host
    return f"{hop.user}@{host}:{hop.port}"


def host_key_changed(hop: SshHop, shown: str) -> Denied:
    """``hop`` shows another key than the pinned one; nothing was sent to it."""
    expected, found = fingerprint(hop.host_key), fingerprint(shown)
    return Denied(
        f"The SSH server {name_of(hop)} shows the host key {found} instead of {expected}.",
        code="host_key_changed",
        hint="Ask whoever runs it whether that is right; if so: iceshelves cluster accept-host-key NAME",
        details={"hop": name_of(hop), "expected": expected, "found": found},
    )


def login_refused(hop: SshHop, public_key: str | None) -> Denied:
    """Nobody may log in with what we have; ``public_key`` is ours, ``None`` where an agent holds the keys."""
    hint = (
        "Load a key into the ssh-agent that the host accepts (ssh-add), or give the cluster a key of its own."
        if public_key is None
        else f"Add this line to ~{hop.user}/.ssh/authorized_keys there: {public_key}"
    )
    return Denied(
        f"The SSH server {name_of(hop)} refused to let us in.",
        code="ssh_denied",
        hint=hint,
        details={"hop": name_of(hop)},
    )


def no_agent(path: str, reason: str) -> Denied:
    """There is no ssh-agent to ask for keys."""
    asked = f"The ssh-agent at {path} does not answer: {reason}." if path else "There is no ssh-agent to ask."
    return Denied(
        asked,
        code="ssh_agent_missing",
        hint="Start the server with SSH_AUTH_SOCK in its environment, or give the cluster a key of its own.",
    )


def nothing_in_common(hop: SshHop, reason: str) -> Failed:
    """Both sides speak SSH, but no common dialect."""
    return Failed(
        f"The SSH server {name_of(hop)} and this one have no algorithm in common: {_one_line(reason)}",
        code="ssh_incompatible",
        hint="Update the SSH server, or allow one of its newer algorithms.",
        details={"hop": name_of(hop)},
    )


def unusable(hop: SshHop, reason: str) -> InvalidInput:
    """What describes ``hop`` cannot be used at all."""
    return InvalidInput(
        f"{name_of(hop)} cannot be an SSH server: {_one_line(reason)}",
        code="invalid_connection",
        hint="Write ssh://root@host.example.org/var/lib/incus/unix.socket.",
    )


def unknown_host_key(line: str) -> InvalidInput:
    """A pinned key of a kind that we cannot check."""
    return InvalidInput(
        f"Host keys of the kind {line.split()[0]} are not supported.",
        code="invalid_host_key",
        hint="Give the server's Ed25519, ECDSA or RSA key.",
    )


def unreachable(where: str, reason: str) -> Temporary:
    """The way to the hypervisor's host is closed."""
    return _unreachable(where, reason, _CHECK_WAY)


def no_socket(path: str) -> OSError:
    """As the kernel says it; the caller has the words and the remedy."""
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


def socket_not_allowed(where: str, hop: SshHop) -> Temporary:
    """The socket is there, but not for the user that we log in as."""
    return _unreachable(
        where,
        os.strerror(errno.EACCES),
        f"The user {hop.user} may not open it: add it to the socket's group there (incus-admin or lxd).",
    )


def socket_refused(where: str) -> Temporary:
    """The socket is there and may be opened: nobody listens, or sshd may not pass it on."""
    return _unreachable(
        where,
        os.strerror(errno.ECONNREFUSED),
        "Start the daemon there, such as with 'systemctl start incus'; if it runs, let sshd pass its socket"
        " on: AllowStreamLocalForwarding yes.",
    )


def socket_not_opened(where: str, reason: str) -> Temporary:
    """The socket was not opened, and the login may not be used to see why."""
    return _unreachable(
        where,
        f"the SSH server did not open the socket ({_one_line(reason)})",
        "Check that the daemon runs there, that the user may open its socket, and that sshd allows it: "
        "AllowStreamLocalForwarding yes.",
    )


def reason_of(error: OSError) -> str:
    """The system's words, without the address that asyncio puts into them."""
    if isinstance(error, socket.gaierror):
        return str(error.strerror)
    if error.errno is not None and error.errno in errno.errorcode:
        return os.strerror(error.errno)
    return _one_line(str(error))


def _unreachable(where: str, reason: str, hint: str) -> Temporary:
    # The same words as for every other way to a hypervisor.
    return Temporary(
        f"The hypervisor at {where} cannot be reached: {_one_line(reason).rstrip('.')}.",
        code="hypervisor_unreachable",
        hint=hint,
        delay=2.0,
    )


def _one_line(words: str) -> str:
    return " ".join(words.split())[:500] or "it gave no reason"
