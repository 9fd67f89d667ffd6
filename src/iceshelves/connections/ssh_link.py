"""One SSH connection to a hypervisor, through the hosts on its way.

Only the pinned host keys are accepted.  Nothing of the user's own SSH set-up is read: neither
``~/.ssh/config`` nor ``known_hosts`` nor keys.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import shlex
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import asyncssh
from aiohttp.client_proto import ResponseHandler

from iceshelves.connections import ssh_errors
from iceshelves.connections.ssh_errors import name_of
from iceshelves.connections.ssh_keys import Login, fingerprint, unreadable_private_key
from iceshelves.connections.ssh_stream import Stream
from iceshelves.connections.transport import Factory
from iceshelves.connections.values import SshHop
from iceshelves.core.errors import IceShelvesError
from iceshelves.core.secret import Secret

# At INFO there is a line for each channel, so one or more for each call.
asyncssh.set_log_level(logging.WARNING)

#: seconds between signs of life, and how many may stay unanswered
_KEEPALIVE: Final = (15, 3)
#: seconds to find out why a socket could not be opened
_DIAGNOSIS: Final = 1.5
#: kinds of host keys that we know, in the order in which a server is asked for them
_HOST_KEY_ALGORITHMS: Final = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
)
#: before what asyncssh prefers: half its time a call, where the processor knows AES
_CIPHERS: Final = "^aes256-gcm@openssh.com,aes128-gcm@openssh.com"
# sshd says "open failed" whatever the reason was; a POSIX shell says which it is by its exit status.
_QUESTION: Final = '[ -e "$0" ] || exit 42; [ -r "$0" ] && [ -w "$0" ] || exit 43; exit 44'
_MISSING, _NOT_ALLOWED, _REFUSED = 42, 43, 44

#: asyncssh looks into the user's files and environment for whatever is not said
_NOTHING_OF_THE_USER: Final[Mapping[str, Any]] = {
    "config": None,
    "client_keys": None,
    "agent_path": None,
    "agent_forwarding": False,
    "gss_host": None,
    "host_based_auth": False,
    "kbdint_auth": False,
    "password_auth": False,
    "x509_trusted_certs": None,
    "x509_trusted_cert_paths": [],
}

_Keys = Sequence[asyncssh.SSHKey | asyncssh.SSHKeyPair]


@dataclass(frozen=True, slots=True)
class Route:
    """The way to the socket ``path``: over ``hops``, with ``login`` at each of them."""

    hops: tuple[SshHop, ...]
    path: str
    login: Login

    @property
    def where(self) -> str:
        """``ssh://user@host:port/path``."""
        return f"ssh://{name_of(self.hops[-1])}{self.path}"


class LinkLost(Exception):
    """The SSH connection was gone before a stream was open; nothing was sent, so another may be tried."""


class Link:
    """An open connection.  ``connections`` are those to the hops, each tunnelled through the one before."""

    def __init__(self, route: Route, connections: Sequence[asyncssh.SSHClientConnection]) -> None:
        self._route = route
        self._connections = connections
        self._streams: set[Stream] = set()
        self._retired = False
        self._asking: asyncio.Task[int | None] | None = None

    @property
    def alive(self) -> bool:
        """Whether new streams can be opened, as far as is known."""
        return not self._retired and not self._connections[-1].is_closed()

    async def dial(self, factory: Factory) -> ResponseHandler:
        """Open a stream to the socket.  Raises :class:`LinkLost`, ``OSError`` or :class:`Temporary`."""
        protocol = factory()
        stream = Stream(protocol, self._left)
        self._streams.add(stream)
        try:
            await self._open(stream)
        except BaseException:
            stream.abort()  # where the channel is still to come, it is closed then
            raise
        return protocol

    def retire(self) -> None:
        """No more streams will be opened here: close once the last has ended."""
        self._retired = True
        if not self._streams:
            self.close()

    def close(self) -> None:
        """Close it with all its streams."""
        if self._asking is not None:
            self._asking.cancel()
        _abort(self._connections)

    def _left(self, stream: Stream) -> None:
        self._streams.discard(stream)
        if self._retired and not self._streams:
            self.close()

    async def _open(self, stream: Stream) -> None:
        opening = asyncio.create_task(self._channel(stream))
        opening.add_done_callback(_retrieve)
        # Not cancelled with us: a channel whose opening nobody awaits would stay open for ever.
        await asyncio.wait({opening})
        try:
            opening.result()
        except asyncssh.Error as error:
            await asyncio.sleep(0)  # a closed connection says so one turn later
            if self._connections[-1].is_closed():
                raise LinkLost from error
            raise await self._refusal(error) from error

    async def _channel(self, stream: Stream) -> None:
        await self._connections[-1].create_unix_connection(lambda: stream, self._route.path)

    async def _refusal(self, refused: asyncssh.Error) -> Exception:
        """Why the far end did not open the socket, in the words that a local one would have."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        asking = self._asking
        await asyncio.wait({asking})
        answer = None if asking.cancelled() else asking.result()
        if answer == _MISSING:
            return ssh_errors.no_socket(self._route.path)
        if answer == _NOT_ALLOWED:
            # A login keeps its groups, so the remedy shows its effect only in a new one.
            self._retired = True
            return ssh_errors.socket_not_allowed(self._route.where, self._route.hops[-1])
        if answer == _REFUSED:
            return ssh_errors.socket_refused(self._route.where)
        return ssh_errors.socket_not_opened(self._route.where, refused.reason)

    async def _ask(self) -> int | None:
        command = f"sh -c {shlex.quote(_QUESTION)} {shlex.quote(self._route.path)}"
        try:
            async with asyncio.timeout(_DIAGNOSIS):
                done = await self._connections[-1].run(
                    command, stdin=asyncssh.DEVNULL, stdout=asyncssh.DEVNULL, stderr=asyncssh.DEVNULL
                )
        except (asyncssh.Error, OSError, TimeoutError):
            return None  # a login that may run nothing
        return done.exit_status


class Opening:
    """An attempt to open a link.  ``at`` is the hop that is being reached."""

    def __init__(self, route: Route) -> None:
        self._route = route
        self._connections: list[asyncssh.SSHClientConnection] = []
        self.at = route.hops[0]

    async def run(self) -> Link:
        """Reach the hops one after the other.  Raises what :mod:`ssh_errors` has words for."""
        async with self._closed_on_failure(), _keys(self._route.login) as keys:
            for hop in self._route.hops:
                await self._enter(hop, keys)
        return Link(self._route, self._connections)

    async def look(self) -> str:
        """The host key that the last hop shows, ``ssh-ed25519 AAAA…``, whatever is pinned."""
        *before, last = self._route.hops
        async with self._closed_on_failure():
            if before:
                async with _keys(self._route.login) as keys:
                    for hop in before:
                        await self._enter(hop, keys)
            self.at = last
            with self._in_words(last):
                shown = await asyncssh.get_server_host_key(
                    last.host,
                    last.port,
                    tunnel=self._before,
                    server_host_key_algs=_algorithms(None),
                    config=None,
                    options=asyncssh.SSHClientConnectionOptions(username=last.user, **_NOTHING_OF_THE_USER),
                )
        _abort(self._connections)
        if shown is None:
            raise ssh_errors.nothing_in_common(last, "it shows no host key")
        return _line(shown)

    def silence(self) -> IceShelvesError:
        """That the hop which is being reached gives no answer."""
        return self._lost("no answer")

    @property
    def _before(self) -> asyncssh.SSHClientConnection | None:
        return self._connections[-1] if self._connections else None

    async def _enter(self, hop: SshHop, keys: _Keys) -> None:
        self.at = hop
        pinned = _public_key(hop.host_key)
        guard = _Guard()
        with self._in_words(hop):
            try:
                connection = await asyncssh.connect(
                    hop.host,
                    hop.port,
                    tunnel=self._before,
                    username=hop.user,
                    client_factory=lambda: guard,
                    known_hosts=([pinned], [], []),
                    server_host_key_algs=_algorithms(pinned),
                    encryption_algs=_CIPHERS,
                    preferred_auth=["publickey"],
                    disable_trivial_auth=True,
                    keepalive_interval=_KEEPALIVE[0],
                    keepalive_count_max=_KEEPALIVE[1],
                    **{**_NOTHING_OF_THE_USER, "client_keys": list(keys) or None},
                )
            except asyncssh.HostKeyNotVerifiable as error:
                if guard.shown is None:  # a certificate, or no key at all
                    raise
                raise ssh_errors.host_key_changed(hop, _line(guard.shown)) from error
            except asyncssh.PermissionDenied as error:
                own = None if self._route.login.key is None else f"{_line(keys[0])} iceshelves"
                raise ssh_errors.login_refused(hop, own) from error
        self._connections.append(connection)

    @contextmanager
    def _in_words(self, hop: SshHop) -> Iterator[None]:
        try:
            yield
        except asyncssh.KeyExchangeFailed as error:
            raise ssh_errors.nothing_in_common(hop, error.reason) from error
        except asyncssh.Error as error:
            raise self._lost(error.reason) from error
        except OSError as error:
            raise self._lost(ssh_errors.reason_of(error)) from error
        except ValueError as error:  # such as a user name that SSH does not allow
            raise ssh_errors.unusable(hop, str(error)) from error

    @asynccontextmanager
    async def _closed_on_failure(self) -> AsyncIterator[None]:
        try:
            yield
        except BaseException:
            _abort(self._connections)
            raise

    def _lost(self, reason: str) -> IceShelvesError:
        hops = self._route.hops
        if len(hops) > 1:
            before = f" from {name_of(hops[len(self._connections) - 1])}" if self._connections else ""
            reason = f"{name_of(self.at)} is not reached{before}: {reason}"
        return ssh_errors.unreachable(self._route.where, reason)


async def shown_host_key(route: Route, deadline: float) -> str:
    """The host key that the last hop shows within ``deadline`` seconds; nobody logs in there."""
    opening = Opening(route)
    try:
        async with asyncio.timeout(deadline):
            return await opening.look()
    except TimeoutError as error:
        raise opening.silence() from error


class _Guard(asyncssh.SSHClient):
    """Accepts no key but the pinned one, and keeps what was shown instead."""

    shown: asyncssh.SSHKey | None = None

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        # Asked only about keys that are not the pinned one.
        del host, addr, port
        self.shown = key
        return False


@asynccontextmanager
async def _keys(login: Login) -> AsyncIterator[_Keys]:
    """What to log in with: our key, or those that an agent holds, which signs for as long as this lasts."""
    if login.key is not None:
        yield [_private_key(login.key)]
        return
    path = login.agent_socket or os.environ.get("SSH_AUTH_SOCK", "")
    try:
        agent = await asyncssh.connect_agent(path)
    except OSError as error:
        raise ssh_errors.no_agent(path, ssh_errors.reason_of(error)) from error
    async with agent:
        try:
            keys = await agent.get_keys()
        except ValueError as error:
            raise ssh_errors.no_agent(path, str(error)) from error
        yield list(keys)


def _private_key(key: Secret) -> asyncssh.SSHKey:
    try:
        return asyncssh.import_private_key(key.reveal())
    except (asyncssh.KeyImportError, ValueError) as error:
        raise unreadable_private_key() from error


def _public_key(line: str) -> asyncssh.SSHKey:
    fingerprint(line)  # says what is wrong with it
    try:
        return asyncssh.import_public_key(line)
    except asyncssh.KeyImportError as error:
        raise ssh_errors.unknown_host_key(line) from error


def _algorithms(pinned: asyncssh.SSHKey | None) -> list[str]:
    """What to ask for: the pinned kind.  A server that has none shows another key, which is then refused."""
    own = [] if pinned is None else [name.decode() for name in pinned.sig_algorithms]
    first = [name for name in own if name in _HOST_KEY_ALGORITHMS] or own
    return [*first, *(name for name in _HOST_KEY_ALGORITHMS if name not in first)]


def _line(key: asyncssh.SSHKey | asyncssh.SSHKeyPair) -> str:
    """A public key as in known_hosts: its algorithm and the key itself, encoded."""
    return f"{key.algorithm.decode()} {base64.b64encode(key.public_data).decode()}"


def _abort(connections: Sequence[asyncssh.SSHClientConnection]) -> None:
    for connection in reversed(connections):
        connection.abort()


def _retrieve(opening: asyncio.Task[None]) -> None:
    if not opening.cancelled():
        opening.exception()
