"""Which server to talk to, and as whom: the saved contexts, or ICESHELVES_SERVER and ICESHELVES_TOKEN."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from iceshelves.core.errors import Failed, InvalidInput, NotFound, Unauthenticated
from iceshelves.core.secret import Secret

PREFIX: Final = "/iceshelves"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Server:
    """A server's base URL, which ends in ``/iceshelves``, and the token to use there."""

    url: str
    token: Secret

    @property
    def is_private(self) -> bool:
        """Whether the token travels encrypted, or does not leave this machine."""
        parts = urlsplit(self.url)
        return parts.scheme == "https" or parts.hostname in _LOOPBACK


@dataclass(frozen=True, slots=True)
class Contexts:
    """The servers that somebody logged in to, by name, and which of them is meant by default."""

    current: str | None = None
    servers: Mapping[str, Server] = field(default_factory=dict)

    def get(self, name: str) -> Server:
        """The server called ``name``.  Raises :class:`NotFound`."""
        if name not in self.servers:
            raise NotFound(
                f"No context is called {name!r}.",
                code="context_not_found",
                hint="See them with 'iceshelves context list', or add one with 'iceshelves login URL'.",
            )
        return self.servers[name]

    def with_server(self, name: str, server: Server) -> Contexts:
        """These contexts and ``server``, which becomes the current one.  Raises :class:`InvalidInput`."""
        if not _NAME.fullmatch(name):
            raise InvalidInput(
                f"{name!r} cannot be a context's name.",
                code="invalid_name",
                hint="Use letters, digits, '.', '_' and '-'.",
            )
        return Contexts(name, {**self.servers, name: server})

    def using(self, name: str) -> Contexts:
        """These contexts with ``name`` as the current one.  Raises :class:`NotFound`."""
        self.get(name)
        return Contexts(name, self.servers)

    def without(self, name: str) -> Contexts:
        """These contexts but ``name``.  Raises :class:`NotFound`."""
        self.get(name)
        rest = {other: server for other, server in self.servers.items() if other != name}
        return Contexts(None if self.current == name else self.current, rest)


def normalised_url(text: str) -> str:
    """The base URL that ``text`` means: with a scheme, with ``/iceshelves``, without a slash at the end.

    Without a scheme it is https, or http on this machine.  Raises :class:`InvalidInput`.
    """
    if "://" not in text:
        host = urlsplit(f"//{text}").hostname
        text = f"{'http' if host in _LOOPBACK else 'https'}://{text}"
    parts = urlsplit(text)
    try:
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.username or parts.query or parts.fragment:
        raise InvalidInput(
            f"{text!r} is not the address of a server.",
            code="invalid_url",
            hint="Write http://HOST:PORT or https://HOST.",
        )
    path = parts.path.rstrip("/").removesuffix("/api")
    if not path.endswith(PREFIX):
        path += PREFIX
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def context_name_for(url: str) -> str:
    """The name that a context gets when none is given: its host, and its port if it has one."""
    parts = urlsplit(url)
    host = re.sub(r"[^A-Za-z0-9._-]", "-", parts.hostname or "server").strip("-._") or "server"
    return f"{host}-{parts.port}" if parts.port else host


def contexts_file(environment: Mapping[str, str] = os.environ) -> Path:
    """Where contexts are kept."""
    home = environment.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(home).expanduser() / "iceshelves" / "contexts.json"


def load(path: Path) -> Contexts:
    """The contexts in the file ``path``; none if there is no such file.  Raises :class:`InvalidInput`."""
    try:
        document: Any = json.loads(path.read_bytes())
        servers = {
            str(name): Server(normalised_url(entry["url"]), Secret(entry["token"]))
            for name, entry in document["contexts"].items()
        }
        return Contexts(document.get("current"), servers)
    except FileNotFoundError:
        return Contexts()
    except OSError as error:
        raise Failed(f"{path} cannot be read: {error.strerror}.", code="contexts_unreadable") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(
            f"{path} is damaged.", code="contexts_damaged", hint="Remove it and log in again."
        ) from error


def save(path: Path, contexts: Contexts) -> None:
    """Write ``contexts`` to ``path``, for its owner's eyes alone, all or nothing.  Raises :class:`Failed`."""
    document = {
        "current": contexts.current,
        "contexts": {
            name: {"url": server.url, "token": server.token.reveal()}
            for name, server in contexts.servers.items()
        },
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, made = tempfile.mkstemp(prefix=".contexts-", dir=path.parent)  # made with mode 0600
        try:
            with os.fdopen(descriptor, "w") as stream:
                json.dump(document, stream, indent=2)
            Path(made).replace(path)
        except BaseException:
            Path(made).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise Failed(f"{path} cannot be written: {error.strerror}.", code="contexts_unwritable") from error


def choose(contexts: Contexts, name: str | None, environment: Mapping[str, str] = os.environ) -> Server:
    """The server to use: ``name`` if given, else what the environment says, else the current context.

    Raises :class:`NotFound` or :class:`Unauthenticated`.
    """
    if name:
        return contexts.get(name)
    if url := environment.get("ICESHELVES_SERVER"):
        return _from_environment(normalised_url(url), environment.get("ICESHELVES_TOKEN"), contexts)
    if contexts.current:
        server = contexts.get(contexts.current)
        token = environment.get("ICESHELVES_TOKEN")
        return Server(server.url, Secret(token)) if token else server
    raise Unauthenticated(
        "You are not logged in to any server.",
        code="not_logged_in",
        hint="Start one with 'iceshelves serve', then 'iceshelves login http://127.0.0.1:8000'.",
    )


def _from_environment(url: str, token: str | None, contexts: Contexts) -> Server:
    if token:
        return Server(url, Secret(token))
    for server in contexts.servers.values():
        if server.url == url:
            return server
    raise Unauthenticated(
        f"There is no token for {url}.",
        code="not_logged_in",
        hint=f"Set ICESHELVES_TOKEN, or run 'iceshelves login {url}'.",
    )
