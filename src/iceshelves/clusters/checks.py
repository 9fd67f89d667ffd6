"""Testing a cluster step by step: each step says what it found, and a failure how to mend it.

The first failure stops those after it; they are shown as not tried.  What is tested is a connection of its
own, so that none which has been open for long can hide that a new one would fail.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from iceshelves.clusters.health import ACTIVE, judge_agent, seen_of
from iceshelves.clusters.hints import fitted
from iceshelves.clusters.outside import Outside
from iceshelves.clusters.report import AgentState, Check, ClusterReport, Subject
from iceshelves.clusters.rotation import how_to_trust
from iceshelves.connections.values import (
    AgentStream,
    Connection,
    Scenario,
    SshSocket,
    TlsApi,
    UnixSocket,
)
from iceshelves.core import clock
from iceshelves.core.errors import Failed, IceShelvesError, Temporary
from iceshelves.core.threads import in_thread
from iceshelves.providers.base import Placement, Provider, Rights, ServerInfo

#: certificates that end sooner are warned of
_SOON: Final = timedelta(days=30)
#: what is wrong with who answers, rather than with what we may do there
_TLS_CODES: Final = frozenset({"no_tls", "hypervisor_unreachable"})
_HOST_KEY_CODES: Final = frozenset({"host_key_changed", "ssh_incompatible", "invalid_host_key"})
_LOGIN_CODES: Final = frozenset({"ssh_denied", "ssh_agent_missing", "invalid_ssh_key"})


async def examine(subject: Subject, outside: Outside) -> ClusterReport:
    """Test ``subject`` from the outside in."""
    provider = subject.open()
    try:
        return await _Examination(subject, provider, outside).run()
    finally:
        await provider.close()


Step = Callable[[], Awaitable[str]]


class _Warned(Exception):
    """A step went well, but somebody should look after something.  It never leaves this module."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class _Examination:
    def __init__(self, subject: Subject, provider: Provider, outside: Outside) -> None:
        self._subject = subject
        self._provider = provider
        self._outside = outside
        self._server: ServerInfo | None = None
        self._refused: IceShelvesError | None = None
        self._members: tuple[dict[str, Any], ...] = ()
        self._checks: list[Check] = []

    async def run(self) -> ClusterReport:
        for name, step in self._steps():
            await self._try(name, step)
        failed = next((check for check in self._checks if check.state == "failed"), None)
        status = "error" if failed else "active"
        message = failed.message if failed else self._summary()
        return ClusterReport(status, message, self._server, tuple(self._checks), self._members)

    def _steps(self) -> Iterator[tuple[str, Step]]:
        connection = self._subject.connection
        yield from self._way(connection)
        if isinstance(connection, AgentStream) and not self._agent.streams:
            return  # live questions do not get through an agent that only polls
        if not isinstance(connection, SshSocket):
            yield "connection" if isinstance(connection, Scenario) else "authentication", self._answer
        yield "rights", self._rights
        yield "version", self._version
        yield "instances", self._kinds
        yield "members", self._find_members
        if isinstance(connection, TlsApi):
            yield "expiry", lambda: _look_at_expiry(connection)

    def _way(self, connection: Connection) -> Iterator[tuple[str, Step]]:
        match connection:
            case TlsApi():
                yield from self._network(connection.host, connection.port)
                yield "certificate", self._certificate
            case SshSocket():
                yield from self._network(connection.hops[0].host, connection.hops[0].port)
                yield "host key", self._host_key
                yield "authentication", self._login
                yield "socket", self._answer
            case UnixSocket():
                yield "socket", lambda: in_thread(_look_at_socket, Path(connection.path))
            case AgentStream():
                yield "enrolled", self._enrolled
                yield "seen", self._seen

    def _network(self, host: str, port: int) -> Iterator[tuple[str, Step]]:
        async def name() -> str:
            return f"{host} is {', '.join(await self._outside.addresses(host, port))}"

        async def tcp() -> str:
            await self._outside.reach(host, port)
            return f"port {port} takes connections"

        yield "name", name
        yield "tcp", tcp

    async def _try(self, name: str, step: Step) -> None:
        if any(check.state == "failed" for check in self._checks):
            self._checks.append(Check(name, "not_tried"))
            return
        try:
            self._checks.append(Check(name, "passed", await step()))
        except _Warned as warning:
            self._checks.append(Check(name, "warned", warning.message, self._named(warning.remedy)))
        except IceShelvesError as error:
            self._checks.append(Check(name, "failed", error.message, self._remedy(error)))

    def _remedy(self, error: IceShelvesError) -> str | None:
        if error.code == "not_trusted" and isinstance(self._subject.connection, TlsApi):
            return (
                f"{how_to_trust(self._subject.family)}\n"
                f"It is printed by: iceshelves cluster certificate {self._subject.name}"
            )
        return self._named(error.hint) if error.hint else None

    def _named(self, words: str) -> str:
        """Commands in hints stand for any cluster."""
        return fitted(words, self._subject.name, self._subject.family)

    def _summary(self) -> str:
        if self._server is None:
            return f"The agent on {self._agent.host} polls"
        return f"{self._server.family} {self._server.version} on {self._server.name}"

    @property
    def _agent(self) -> AgentState:
        return self._subject.agent or _NO_AGENT

    async def _probe(self) -> IceShelvesError | None:
        """Ask who is there, once; the refusal is told at the step that it belongs to."""
        if self._server is None and self._refused is None:
            try:
                self._server = await self._provider.probe()
            except IceShelvesError as error:
                self._refused = error
        return self._refused

    async def _certificate(self) -> str:
        refused = await self._probe()
        if refused is not None and (refused.code.startswith("certificate_") or refused.code in _TLS_CODES):
            raise refused
        return "the server shows the one that is trusted"

    async def _host_key(self) -> str:
        refused = await self._probe()
        if refused is not None and refused.code in _HOST_KEY_CODES:
            raise refused
        return "the server shows the one that is trusted"

    async def _login(self) -> str:
        refused = await self._probe()
        if refused is not None and refused.code in _LOGIN_CODES:
            raise refused
        return "it lets us in"

    async def _answer(self) -> str:
        refused = await self._probe()
        if refused is not None or self._server is None:
            raise refused or _silent()
        return f"{self._server.name} answers and trusts us"

    async def _rights(self) -> str:
        rights = self._provider.offers(Rights)
        return await rights.check() if rights is not None else "nothing is restricted"

    async def _version(self) -> str:
        server, provider = self._known(), self._subject.family
        if server.family != provider:
            raise Failed(
                f"This is {server.family}, not {provider}.",
                code="wrong_provider",
                hint=f"iceshelves cluster delete NAME, then add it with --provider {server.family}",
            )
        return f"{server.family} {server.version}"

    async def _kinds(self) -> str:
        kinds = self._known().kinds
        if not kinds:
            raise Failed(
                "Neither containers nor virtual machines can run there.",
                code="no_kinds",
                hint="Install what the daemon misses (LXC for containers, QEMU for virtual machines)"
                " and restart it; its log names it.",
            )
        return f"kinds that run here: {', '.join(sorted(kinds))}"

    async def _find_members(self) -> str:
        placement = self._provider.offers(Placement)
        members = () if placement is None else await placement.members()
        self._members = tuple(
            {"name": member.name, "online": member.online, "status": member.status, "message": member.message}
            for member in members
        )
        online = [member for member in members if member.online]
        if members and not online:
            raise Failed(
                "No member is online.",
                code="no_member_online",
                hint="Start the daemons of the members; the hypervisor's 'cluster list' says more.",
            )
        if len(online) < len(members):
            away = ", ".join(member.name for member in members if not member.online)
            raise _Warned(
                f"{len(online)} of {len(members)} online; away: {away}",
                "Start them, or look there for the reason: iceshelves cluster members NAME",
            )
        return f"{len(online)} of {len(members)} online"

    async def _enrolled(self) -> str:
        if not self._agent.seen.enrolled or self._agent.seen.revoked:
            raise Failed(
                "No agent has been enrolled, or it has been revoked.",
                code="no_agent",
                hint="Enrol one beside the hypervisor: iceshelves cluster enroll NAME",
            )
        return f"version {self._agent.version or 'unknown'} on {self._agent.host or 'an unknown host'}"

    async def _seen(self) -> str:
        found = judge_agent(self._agent.seen, clock.now())
        if found.status != ACTIVE:
            raise Temporary(
                found.message,
                code="agent_away",
                hint="See there whether it runs and reaches this server: systemctl status iceshelves-agent",
            )
        ago = (clock.now() - (self._agent.seen.last_seen or clock.now())).total_seconds()
        return f"last seen {ago:.0f} s ago"

    def _known(self) -> ServerInfo:
        if self._server is None:
            raise _silent()
        return self._server


_NO_AGENT: Final = AgentState(seen_of(None))


def _silent() -> IceShelvesError:
    return Temporary("The hypervisor did not say who it is.", code="hypervisor_unreachable")


def _look_at_socket(path: Path) -> str:
    from iceshelves.providers.incus import errors

    if not path.exists():
        raise errors.unreachable(str(path), OSError(errno.ENOENT, ""))
    if not path.is_socket():
        raise Failed(
            f"{path} is no socket.",
            code="not_a_socket",
            hint="Give the path of the daemon's socket: iceshelves cluster set NAME --socket PATH",
        )
    if not os.access(path, os.R_OK | os.W_OK):
        raise errors.unreachable(str(path), OSError(errno.EACCES, ""))
    return f"{path} may be opened"


async def _look_at_expiry(connection: TlsApi) -> str:
    from iceshelves.connections.certificates import not_after

    ours, theirs = not_after(connection.certificate), not_after(connection.trusted)
    if ours - clock.now() < _SOON:
        raise _Warned(f"our certificate ends on {ours:%Y-%m-%d}", "iceshelves cluster rotate NAME")
    if theirs - clock.now() < _SOON:
        raise _Warned(
            f"the server's certificate ends on {theirs:%Y-%m-%d}",
            "Renew it on the hypervisor, then: iceshelves cluster accept-certificate NAME",
        )
    return f"ours is good until {ours:%Y-%m-%d}, the server's until {theirs:%Y-%m-%d}"
