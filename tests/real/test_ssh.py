"""A real Incus through a real sshd: ways to get there, refusals with their reasons, and lost connections."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from iceshelves.connections.ssh import SshTransport
from iceshelves.connections.ssh_keys import KeyPair, Login, fingerprint, make_key_pair, scan_host_key
from iceshelves.connections.transport import open_hypervisor_session
from iceshelves.connections.values import SshSocket
from iceshelves.core.errors import Denied, IceShelvesError, Temporary
from iceshelves.providers import base
from iceshelves.providers.base import ExecRequest, InventoryEvent, Provider, require
from iceshelves.providers.incus.provider import IncusProvider
from real.driving import instance
from testbed.hosts import Host
from testbed.sshd import Sshd, missing_for_sshd, running_sshd

pytestmark = pytest.mark.anyio

INNER, JUMP, OTHER = 2201, 2202, 2203


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def sshd(incus_host: Host) -> Iterator[Sshd]:
    if reason := missing_for_sshd():
        pytest.skip(f"SSH: {reason}")
    with running_sshd(incus_host) as running:
        yield running


@asynccontextmanager
async def reached(connection: SshSocket) -> AsyncIterator[Provider]:
    provider = IncusProvider("incus", connection)
    try:
        yield provider
    finally:
        await provider.close()


async def refused(connection: SshSocket) -> IceShelvesError:
    """What a call over ``connection`` fails with."""
    async with reached(connection) as provider:
        with pytest.raises(IceShelvesError) as caught:
            await provider.probe()
    return caught.value


async def exit_status(provider: Provider, name: str, script: str) -> int:
    async with await require(provider, base.Guest).exec(name, ExecRequest(["sh", "-c", script])) as session:
        return await session.wait()


# Ways


async def test_the_hypervisor_needs_no_listener_but_sshd(
    sshd: Sshd, incus_host: Host, tiny_image: str
) -> None:
    incus_host.cli("config", "unset", "core.https_address")  # which other tests may have set
    listening = incus_host.exec("ss", "-Hltn").stdout.splitlines()
    assert {line.split()[3].rpartition(":")[2] for line in listening} <= {"22", "53"}  # 53: the guests' DNS
    async with reached(sshd.connection) as provider, instance(provider, "over-ssh") as spec:
        assert (await provider.probe()).family == "incus"
        await require(provider, base.Lifecycle).start(spec.name)
        assert await exit_status(provider, spec.name, "exit 7") == 7
        assert sshd.processes() == 1


async def test_large_bodies_pass_in_both_directions(sshd: Sshd, tiny_image: str) -> None:
    data = bytes(range(256)) * 4096 * 12  # 12 MiB: more than the windows hold
    async with reached(sshd.connection) as provider, instance(provider, "large") as spec:
        await require(provider, base.Lifecycle).start(spec.name)
        async with await require(provider, base.Guest).exec(spec.name, ExecRequest(["cat"])) as session:

            async def write() -> None:
                for start in range(0, len(data), 65536):
                    await session.write(data[start : start + 65536])
                await session.write(b"")

            writing = asyncio.create_task(write())
            back = b"".join([chunk async for _, chunk in session.output()])
            await writing
            assert await session.wait() == 0
        assert back == data


async def test_who_does_not_read_makes_the_other_side_wait(sshd: Sshd, incus_host: Host) -> None:
    passed = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal passed
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        for _ in range(600):
            writer.write(bytes(100_000))
            await writer.drain()
            passed += 100_000
        writer.close()

    async with peer(sshd, incus_host, flood) as session, session.get("/") as response:
        await asyncio.sleep(1.0)
        assert passed < 8_000_000  # a window of the channel, and what each program on the way holds
        assert len(await response.read()) == 60_000_000


async def test_who_is_not_read_waits(sshd: Sshd, incus_host: Host) -> None:
    passed = 0
    go_on = asyncio.Event()

    async def ignore(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        received = 0
        while received < 60_000_000:
            received += len(await reader.read(1 << 20))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async def body() -> AsyncIterator[bytes]:
        nonlocal passed
        for _ in range(600):
            yield bytes(100_000)
            passed += 100_000

    async with peer(sshd, incus_host, ignore) as session:
        sending = asyncio.create_task(session.post("/", data=body()))
        await asyncio.sleep(1.0)
        assert passed < 8_000_000
        go_on.set()
        assert (await sending).status == 200
    assert passed == 60_000_000


async def test_through_a_jump_host(sshd: Sshd, incus_host: Host) -> None:
    with inner_and_jump(incus_host) as (inner, jump):
        login = jump.keys
        inner.authorise(login.public)
        connection = replace(inner.through(jump), key=login.private)
        async with reached(connection) as provider:
            assert (await provider.probe()).family == "incus"
        # It is a way that does not exist without the jump.
        alone = await refused(replace(connection, hops=connection.hops[1:]))
        assert alone.code == "hypervisor_unreachable"


async def test_what_fails_on_the_way_names_the_hop(sshd: Sshd, incus_host: Host) -> None:
    with inner_and_jump(incus_host) as (inner, jump):
        connection = replace(inner.through(jump), key=jump.keys.private)
        first, last = connection.hops
        for hop, broken in (
            (first, (replace(first, host_key=last.host_key), last)),
            (last, (first, replace(last, host_key=first.host_key))),
        ):
            error = await refused(replace(connection, hops=broken))
            assert (error.code, error.details["hop"]) == ("host_key_changed", f"root@{hop.host}:{hop.port}")
        denied = await refused(connection)  # the inner one knows its own key only
        assert (denied.code, denied.details["hop"]) == ("ssh_denied", f"root@127.0.0.1:{INNER}")
        closed = await refused(replace(connection, hops=(first, replace(last, port=1))))
        assert f"root@127.0.0.1:1 is not reached from root@{first.host}:{JUMP}: Connection refused" in str(
            closed
        )


async def test_the_ssh_agent_logs_in(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    without_key = replace(sshd.connection, key=None)
    assert (await refused(without_key)).code == "ssh_agent_missing"
    with ssh_agent(tmp_path) as (path, add):
        empty = await refused(replace(without_key, agent_socket=path))
        assert (empty.code, "ssh-add" in str(empty.hint)) == ("ssh_denied", True)
        add(make_key_pair("another"))
        add(sshd.keys)
        async with reached(replace(without_key, agent_socket=path)) as provider:
            assert (await provider.probe()).family == "incus"
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        async with reached(without_key) as provider:
            assert (await provider.probe()).family == "incus"
    assert (await refused(replace(without_key, agent_socket=path))).code == "ssh_agent_missing"


# Refusals


async def test_a_changed_host_key_is_refused_until_it_is_taken_over(sshd: Sshd, incus_host: Host) -> None:
    with running_sshd(incus_host, OTHER) as other:
        before = other.connection
        other.stop()
        other.change_host_key()
        other.start()
        error = await refused(before)
        expected, found = fingerprint(before.hops[0].host_key), fingerprint(other.host_key)
        assert isinstance(error, Denied)
        assert error.code == "host_key_changed"
        assert expected in error.message
        assert found in error.message
        assert (error.details["expected"], error.details["found"]) == (expected, found)
        assert "accept-host-key" in str(error.hint)
        shown = await scan_host_key((), before.hops[0].host, OTHER, 5)
        assert fingerprint(shown) == found
        async with reached(replace(before, hops=(replace(before.hops[0], host_key=shown),))) as provider:
            await provider.probe()


async def test_a_host_key_of_another_kind_counts_as_changed(sshd: Sshd, incus_host: Host) -> None:
    with running_sshd(incus_host, OTHER) as other:
        before = other.connection
        other.stop()
        key = other.folder / "host"
        for file in (key, key.with_suffix(".pub")):
            file.unlink()
        subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", str(key)], check=True)
        other.start()
        error = await refused(before)
        assert (error.code, error.details["found"]) == ("host_key_changed", fingerprint(other.host_key))


async def test_of_several_host_keys_the_pinned_one_is_asked_for(sshd: Sshd, incus_host: Host) -> None:
    second = incus_host.root / "second"
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", str(second)], check=True)
    with running_sshd(incus_host, OTHER, options=(f"HostKey {second}",)) as other:
        rsa = " ".join(second.with_suffix(".pub").read_text().split()[:2])
        for line in (rsa, other.host_key):
            hop = replace(other.hop, host_key=line)
            async with reached(replace(other.connection, hops=(hop,))) as provider:
                await provider.probe()


async def test_a_wrong_key_is_refused_with_the_line_that_lets_it_in(sshd: Sshd) -> None:
    stranger = make_key_pair("stranger")
    error = await refused(replace(sshd.connection, key=stranger.private))
    assert isinstance(error, Denied)
    assert error.code == "ssh_denied"
    assert " ".join(stranger.public.split()[:2]) in str(error.hint)
    assert "PRIVATE" not in str(error.to_json())
    try:
        sshd.authorise(sshd.keys.public, stranger.public)
        async with reached(replace(sshd.connection, key=stranger.private)) as provider:
            await provider.probe()
    finally:
        sshd.authorise(sshd.keys.public)


@pytest.mark.parametrize(
    ("prepare", "reason", "remedy"),
    [
        (lambda path: None, "No such file or directory", "check the path"),
        (lambda path: path.touch(), "Connection refused", "Start the daemon"),
    ],
)
async def test_a_socket_that_does_not_open_has_the_words_of_a_local_one(
    sshd: Sshd, incus_host: Host, prepare: Callable[[Path], Any], reason: str, remedy: str
) -> None:
    path = incus_host.root / "no.sock"
    path.unlink(missing_ok=True)
    prepare(path)
    error = await refused(replace(sshd.connection, path=str(path)))
    assert isinstance(error, Temporary)
    assert error.code == "hypervisor_unreachable"
    assert (
        error.message == f"The hypervisor at ssh://root@{sshd.hop.host}:22{path} cannot be reached: {reason}."
    )
    assert remedy in str(error.hint)


async def test_a_user_who_may_not_open_the_socket_may_once_allowed(sshd: Sshd, incus_host: Host) -> None:
    keys = incus_host.root / "keys-of-nobody"
    keys.write_text(f"{sshd.keys.public}\n")
    options = ("Match User nobody", f"AuthorizedKeysFile {keys}")
    with a_shell_for_nobody(incus_host), running_sshd(incus_host, OTHER, options=options) as other:
        connection = replace(other.connection, hops=(replace(other.hop, user="nobody"),))
        async with reached(replace(connection, key=sshd.keys.private)) as provider:
            with pytest.raises(Temporary) as caught:
                await provider.probe()
            assert caught.value.message.endswith("cannot be reached: Permission denied.")
            assert "nobody" in str(caught.value.hint)
            incus_host.socket.chmod(0o666)
            try:
                await provider.probe()
            finally:
                incus_host.socket.chmod(0o660)
        # A login keeps the groups that it began with, so there has to be another one.
        assert (other.folder / "log").read_text().count("Accepted publickey for nobody") == 2


async def test_an_sshd_that_passes_no_sockets_on_is_told_so(sshd: Sshd, incus_host: Host) -> None:
    with running_sshd(incus_host, OTHER, options=("AllowStreamLocalForwarding no",)) as other:
        error = await refused(other.connection)
        assert "AllowStreamLocalForwarding" in str(error.hint)
    command_only = ("AllowStreamLocalForwarding no", "ForceCommand /bin/false")
    with running_sshd(incus_host, OTHER, options=command_only) as other:
        error = await refused(other.connection)
        assert "the SSH server did not open the socket" in error.message


async def test_no_file_of_the_users_own_set_up_is_read(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ".ssh"
    folder.mkdir()
    (folder / "config").write_text("Host *\n  Port 1\n  User nobody\n  ProxyCommand false\n")
    (folder / "known_hosts").write_text(f"{sshd.hop.host} {sshd.host_key}\n")
    (folder / "id_ed25519").write_text(sshd.keys.private.reveal())
    (folder / "id_ed25519").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    async with reached(sshd.connection) as provider:
        await provider.probe()
    assert (await refused(replace(sshd.connection, key=None))).code == "ssh_agent_missing"
    stranger = make_key_pair("stranger")
    assert (await refused(replace(sshd.connection, key=stranger.private))).code == "ssh_denied"
    pinned = replace(sshd.hop, host_key=" ".join(stranger.public.split()[:2]))
    assert (await refused(replace(sshd.connection, hops=(pinned,)))).code == "host_key_changed"


# Lost connections


async def test_twenty_streams_at_once_share_one_connection(sshd: Sshd) -> None:
    transport = SshTransport(sshd.connection)
    session = open_hypervisor_session(transport)

    async def status() -> int:
        async with session.get("/1.0") as response:
            await asyncio.sleep(0.2)  # so that all are open together
            return response.status

    assert await asyncio.gather(*(status() for _ in range(20))) == [200] * 20
    assert sshd.processes() == 1
    await session.close()
    await transport.close()
    async with asyncio.timeout(5):
        while sshd.processes():
            await asyncio.sleep(0.05)


async def test_streams_that_nobody_waits_for_any_more_do_not_stay_open(sshd: Sshd, incus_host: Host) -> None:
    """The daemons take no other connection to their socket while one that is open says nothing."""
    ended = begun = 0

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal begun, ended
        begun += 1
        await reader.read()
        ended += 1
        writer.close()

    async with peer(sshd, incus_host, count) as session:
        for number in range(40):
            asking = asyncio.create_task(session.get("/"))
            await asyncio.sleep(0.0002 * (number % 20))
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        async with asyncio.timeout(5):
            while not begun or ended < begun:
                await asyncio.sleep(0.05)
        assert sshd.processes() == 1


async def test_an_operation_outlives_a_cut_and_its_end_is_known(
    sshd: Sshd, incus_host: Host, tiny_image: str
) -> None:
    async with reached(sshd.connection) as provider, instance(provider, "cut-ssh") as spec:
        # A guest that does not mind being asked to stop, so that the stop takes its whole grace.
        incus_host.cli("config", "set", spec.name, "raw.lxc=lxc.signal.halt=SIGWINCH")
        lifecycle = require(provider, base.Lifecycle)
        await lifecycle.start(spec.name)
        stopping = asyncio.create_task(lifecycle.stop(spec.name, grace=2))
        await asyncio.sleep(0.5)
        sshd.cut()
        async with asyncio.timeout(10):
            await stopping
        assert (await lifecycle.find(spec.name)).power == "stopped"  # type: ignore[union-attr]


async def test_a_program_whose_connection_is_cut_ends_and_the_next_one_works(
    sshd: Sshd, tiny_image: str
) -> None:
    async with reached(sshd.connection) as provider, instance(provider, "cut-exec") as spec:
        await require(provider, base.Lifecycle).start(spec.name)
        running = asyncio.create_task(exit_status(provider, spec.name, "sleep 60"))
        await asyncio.sleep(0.5)
        sshd.cut()
        async with asyncio.timeout(10):
            [end] = await asyncio.gather(running, return_exceptions=True)
        assert isinstance(end, IceShelvesError) or end == 137 or end == 129
        assert await exit_status(provider, spec.name, "exit 3") == 3


async def test_a_watcher_is_told_to_look_again_after_sshd_was_restarted(sshd: Sshd) -> None:
    async with reached(sshd.connection) as provider:
        told: asyncio.Queue[InventoryEvent] = asyncio.Queue()
        watching = asyncio.create_task(require(provider, base.Inventory).watch(told.put))
        await asyncio.sleep(0.3)
        sshd.restart()
        async with asyncio.timeout(10):
            assert (await told.get()).action == "resync"
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def test_while_sshd_is_away_calls_fail_at_once_and_work_again_afterwards(sshd: Sshd) -> None:
    async with reached(sshd.connection) as provider:
        await provider.probe()
        sshd.stop()
        sshd.host.exec("sh", "-c", "pkill -KILL '^sshd' || true")
        lifecycle = require(provider, base.Lifecycle)
        async with asyncio.timeout(2):
            with pytest.raises(Temporary) as caught:
                await lifecycle.find("nobody")
        assert "Connection refused" in caught.value.message
        sshd.start()
        assert await lifecycle.find("nobody") is None


# Looking at a host key


async def test_scanning_through_a_jump_logs_in_there_only(sshd: Sshd, incus_host: Host) -> None:
    with inner_and_jump(incus_host) as (inner, jump):
        login = Login(jump.keys.private)
        shown = await scan_host_key((jump.hop,), "127.0.0.1", INNER, 5, login)
        assert shown == inner.host_key
        with pytest.raises(Denied) as caught:
            await scan_host_key((jump.hop,), "127.0.0.1", INNER, 5, Login(make_key_pair("x").private))
        assert caught.value.code == "ssh_denied"


async def test_scanning_what_does_not_answer_ends_within_its_deadline(incus_host: Host) -> None:
    held: list[object] = []  # else the connections are closed as soon as nobody refers to them
    silent = await asyncio.start_server(lambda *ends: held.append(ends), "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    async with asyncio.timeout(3):
        with pytest.raises(Temporary, match="no answer"):
            await scan_host_key((), "127.0.0.1", port, 0.5)
    silent.close()


# The parts


@asynccontextmanager
async def peer(
    sshd: Sshd,
    host: Host,
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]],
) -> AsyncIterator[aiohttp.ClientSession]:
    """A session with ``serve``, which answers at a socket on ``host`` instead of the daemon."""
    path = host.root / "peer.sock"
    path.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(serve, path)
    transport = SshTransport(replace(sshd.connection, path=str(path)))
    session = open_hypervisor_session(transport)
    try:
        yield session
    finally:
        await session.close()
        await transport.close()
        server.close()


@contextmanager
def inner_and_jump(host: Host) -> Iterator[tuple[Sshd, Sshd]]:
    """An sshd that is reached on ``host`` alone, and one that leads there."""
    with running_sshd(host, INNER, "127.0.0.1") as inner, running_sshd(host, JUMP) as jump:
        yield inner, jump


@contextmanager
def a_shell_for_nobody(host: Host) -> Iterator[None]:
    """The user ``nobody`` may log in on ``host``."""
    users = Path("/etc/passwd").read_text().splitlines()
    own = host.root / "passwd"
    own.write_text(
        "\n".join(
            line.rpartition(":")[0] + ":/bin/sh" if line.startswith("nobody:") else line for line in users
        )
        + "\n"
    )
    host.exec("mount", "--bind", str(own), "/etc/passwd")
    try:
        yield
    finally:
        host.exec("umount", "/etc/passwd")


@contextmanager
def ssh_agent(folder: Path) -> Iterator[tuple[str, Callable[[KeyPair], None]]]:
    """A running ssh-agent: its socket, and what gives it a key."""
    path = str(folder / "agent.sock")
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)

    def add(keys: KeyPair) -> None:
        subprocess.run(
            ["ssh-add", "-q", "-"],
            input=keys.private.reveal().encode(),
            env={"SSH_AUTH_SOCK": path},
            check=True,
            capture_output=True,
        )

    try:
        while not Path(path).exists():
            assert agent.poll() is None
        yield path, add
    finally:
        agent.terminate()
        agent.wait()
