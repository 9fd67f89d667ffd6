"""Keys of SSH: a pair of our own for a cluster, the form in which they are compared, and what a server shows.

Nothing here costs the memory of an SSH client, but for :func:`scan_host_key` once it is called.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from iceshelves.connections.values import SshHop
from iceshelves.core.errors import InvalidInput
from iceshelves.core.secret import Secret


@dataclass(frozen=True, slots=True)
class KeyPair:
    """``private`` in OpenSSH's format, ``public`` as a line of ``authorized_keys``."""

    private: Secret
    public: str


@dataclass(frozen=True, slots=True)
class Login:
    """What we log in with: a private key, or without one an ssh-agent, that of the process by default."""

    key: Secret | None = None
    agent_socket: str | None = None


def make_key_pair(comment: str) -> KeyPair:
    """A new Ed25519 pair; ``comment`` tells whoever reads ``authorized_keys`` whose it is."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return KeyPair(Secret(private.decode()), f"{public.decode()} {comment}")


def public_key_of(private: Secret, comment: str) -> str:
    """The line for ``authorized_keys`` that goes with a private key in OpenSSH's format.

    Raises :class:`InvalidInput` ``invalid_ssh_key`` for what is no such key, or needs a passphrase.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    try:
        key = serialization.load_ssh_private_key(private.reveal().encode(), None)
        public = key.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise unreadable_private_key() from error
    return f"{public.decode()} {comment}"


def unreadable_private_key() -> InvalidInput:
    """A private key that cannot be used; nothing of it is told."""
    return InvalidInput(
        "The private key cannot be read: it is not one in OpenSSH's format, or it has a passphrase.",
        code="invalid_ssh_key",
        hint="ssh-keygen -p -N '' -f KEY rewrites a key in that format and without a passphrase.",
    )


def fingerprint(line: str) -> str:
    """The fingerprint of a public key as ``ssh-keygen -l`` prints it: ``SHA256:…``.

    ``line`` is as in known_hosts without its names, ``ssh-ed25519 AAAA… [comment]``.  Raises
    :class:`InvalidInput` ``invalid_host_key``.
    """
    digest = hashlib.sha256(_blob(line)).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


async def scan_host_key(
    hops_before: Sequence[SshHop], host: str, port: int, deadline: float, login: Login | None = None
) -> str:
    """The key that the SSH server at ``host`` shows, ``ssh-ed25519 AAAA…``, without logging in there.

    The hosts that have to be jumped over need a ``login``.  Raises what an attempt to connect does, within
    ``deadline`` seconds.
    """
    from iceshelves.connections.ssh_link import Route, shown_host_key

    target = SshHop(host, "root", "", port)
    return await shown_host_key(Route((*hops_before, target), "", login or Login()), deadline)


def _blob(line: str) -> bytes:
    """The key itself.  Its first field repeats the algorithm (RFC 4253, section 6.6)."""
    algorithm, _, rest = line.strip().partition(" ")
    encoded = rest.strip().partition(" ")[0]
    try:
        blob = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _unreadable(line) from error
    size = int.from_bytes(blob[:4], "big")
    if not algorithm or blob[4 : 4 + size] != algorithm.encode() or len(blob) <= 4 + size:
        raise _unreadable(line)
    return blob


def _unreadable(line: str) -> InvalidInput:
    return InvalidInput(
        f"{line[:60]!r} is not a public key of SSH.",
        code="invalid_host_key",
        hint="Write it as in /etc/ssh/ssh_host_ed25519_key.pub on the server: ssh-ed25519 AAAA…",
    )
