"""Machines for tests: each has its own mounts, network, processes, name and control groups on this machine.

A :class:`Host` runs a real Incus or LXD that no other test, and no daemon of the developer's machine, can see
or be seen by.  It ends as a machine whose plug is pulled: one SIGKILL to its PID 1, and everything in
it is gone, network cards and mounts included.  The same happens when the test process itself dies.

A host is tied to this machine by a pair of network cards with an address at either end, so that tests reach
its daemons, and by masquerading, so that its guests reach package mirrors.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
HOST_NETWORKS: Final = IPv4Network("10.67.0.0/16")
_MOST_HOSTS: Final = HOST_NETWORKS.num_addresses // 4
#: a file for each number, locked by the process that has it
_NUMBERS: Final = Path("/run/iceshelves-tests-numbers")
_ROOMY: Final = 4 * 1024**3
_PR_SET_PDEATHSIG: Final = 1
_libc: Final = ctypes.CDLL(None)


class TestbedError(Exception):
    """A part of the test bed did not start; the message carries its log."""

    __test__ = False


@dataclass(frozen=True)
class Hypervisor:
    """A daemon that a host can run: its program, its own client, and what it takes its directory from."""

    family: str
    daemon: Path
    client: str
    directory: str
    first_setup: tuple[str, ...]


INCUS: Final = Hypervisor(
    "incus", Path("/usr/libexec/incus/incusd"), "incus", "INCUS_DIR", ("incus", "admin", "init", "--preseed")
)
LXD: Final = Hypervisor("lxd", Path("/usr/bin/lxd"), "lxc", "LXD_DIR", ("lxd", "init", "--preseed"))


def missing_for_hosts(hypervisor: Hypervisor = INCUS) -> str | None:
    """Why hosts with it cannot be started here, naming exactly what is missing; ``None`` when nothing is."""
    if os.geteuid() != 0:
        return "needs root"
    tools = ("unshare", "nsenter", "ip", "nft", "dnsmasq", hypervisor.client)
    absent = [tool for tool in tools if not shutil.which(tool)]
    if not hypervisor.daemon.exists():
        absent.append(str(hypervisor.daemon))
    if absent:
        return "not installed: " + ", ".join(absent)
    refused = subprocess.run(
        ["unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "true"],
        capture_output=True,
        text=True,
    )
    return f"unshare is refused: {refused.stderr.strip()}" if refused.returncode else None


def scratch_directory(purpose: str) -> Path:
    """A new directory, which unprivileged guests may pass (mode 0711); in memory when that is roomy.

    What earlier test processes left because they were killed is removed first: a living one holds a lock.
    """
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > _ROOMY
    parent = memory if roomy else Path("/var/tmp")
    for stale in parent.glob(f"iceshelves-{purpose}-*"):
        with contextlib.suppress(BlockingIOError, FileNotFoundError, NotADirectoryError):
            _lock(stale)
            shutil.rmtree(stale, ignore_errors=True)
    path = Path(tempfile.mkdtemp(prefix=f"iceshelves-{purpose}-", dir=parent))
    _lock(path)
    path.chmod(0o711)
    return path


def _lock(directory: Path) -> None:
    """Lock ``directory`` for as long as this process lives; ``BlockingIOError`` when another one has."""
    fcntl.flock(
        os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), fcntl.LOCK_EX | fcntl.LOCK_NB
    )


def die_with_parent() -> None:
    """For ``preexec_fn``: the child gets SIGKILL when the test process ends, however that ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    """Wait for ``condition``; raises :class:`TestbedError` naming ``what`` after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TestbedError(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(0.02)


def _run(*command: str, stdin: str | None = None) -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True)
    if done.returncode:
        raise TestbedError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def _cgroup_hierarchies() -> list[Path]:
    top = Path("/sys/fs/cgroup")
    if (top / "cgroup.controllers").exists():
        return [top]
    return sorted(path for path in top.iterdir() if path.is_dir() and not path.is_symlink())


def _allow_many_guests() -> None:
    """Twenty guests use up the usual 128 inotify instances.

    Incus' own package raises the number by a file in ``/etc/sysctl.d``, which only an init system reads.
    """
    setting = Path("/proc/sys/fs/inotify/max_user_instances")
    if int(setting.read_text()) < 1024:
        setting.write_text("1024")


def _name_servers() -> str:
    """The resolvers of this machine as a host can reach them: one on loopback is out of its reach."""
    for source in (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf")):
        if source.exists():
            servers = [line for line in source.read_text().splitlines() if line.startswith("nameserver")]
            usable = [line for line in servers if not line.split()[1].startswith(("127.", "::1"))]
            if usable:
                return "\n".join(usable) + "\n"
    return ""


_FORWARD_SWITCH = Path("/proc/sys/net/ipv4/ip_forward")
_FORWARDING_WAS_OFF = Path("/run/iceshelves-tests-forwarding-was-off")


class Number:
    """A host's place in :data:`HOST_NETWORKS`, held by this process until it is released.

    It outlives the host's network card, so that a host that is switched on again has the address it had.
    """

    def __init__(self) -> None:
        _NUMBERS.mkdir(parents=True, exist_ok=True)
        for value in range(_MOST_HOSTS):
            handle = os.open(_NUMBERS / str(value), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(handle)
                continue
            if not Path(f"/sys/class/net/ishost{value}").exists():
                self.value, self._handle = value, handle
                return
            os.close(handle)
        raise TestbedError(f"no number is left in {HOST_NETWORKS}")

    def release(self) -> None:
        """Leave it to others."""
        os.close(self._handle)


@dataclass(frozen=True)
class Cable:
    """A pair of network cards: ``card`` here with ``gateway``, ``eth0`` with ``address`` in the host."""

    card: str
    gateway: str
    address: str

    @classmethod
    def plug(cls, pid: int, number: Number) -> Cable:
        """Tie the network namespace of ``pid`` to this machine."""
        first = HOST_NETWORKS.network_address + 4 * number.value
        cable = cls(f"ishost{number.value}", str(first + 1), str(first + 2))
        _run("ip", "link", "add", cable.card, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
        _run("ip", "address", "add", f"{cable.gateway}/30", "dev", cable.card)
        _run("ip", "link", "set", cable.card, "up")
        return cable

    def unplug(self) -> None:
        """Take both cards away.

        They would go with the host, but not before its kernel has given up on connections to peers that are
        gone as well, which takes minutes.
        """
        subprocess.run(["ip", "link", "delete", self.card], capture_output=True)


class Forwarding:
    """Lets a host's guests reach what this machine reaches, by masquerading, and other hosts.

    The table is *owned* by the ``nft`` process that is held here: the kernel removes it when that ends.
    """

    def __init__(self, cable: Cable) -> None:
        if _FORWARD_SWITCH.read_text().strip() != "1":
            _FORWARDING_WAS_OFF.touch()
            _FORWARD_SWITCH.write_text("1")
        self._card = cable.card
        self._nft = subprocess.Popen(
            ["nft", "--interactive"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            preexec_fn=die_with_parent,
        )
        stdin = self._nft.stdin
        if stdin is not None:
            rule = f'ip saddr {cable.address}/30 oifname != "ishost*" masquerade'
            chain = f"type nat hook postrouting priority srcnat; {rule};"
            # A host that is switched off answers nothing; without this, whoever is out there might.
            rule = f'ip daddr {HOST_NETWORKS} oifname != "ishost*" drop'
            dead = f"type filter hook forward priority filter; {rule};"
            chains = f"chain out {{ {chain} }}; chain dead {{ {dead} }};"
            stdin.write(f"table ip {cable.card} {{ flags owner; {chains} }}\n")
            stdin.flush()

    def stop(self) -> None:
        """Take the rule away, and with the last host the machine's forwarding, if it was off before."""
        self._nft.kill()
        self._nft.wait()
        others = [card for card in Path("/sys/class/net").glob("ishost*") if card.name != self._card]
        if _FORWARDING_WAS_OFF.exists() and not others:
            _FORWARDING_WAS_OFF.unlink()
            _FORWARD_SWITCH.write_text("0")


@dataclass
class Host:
    """One isolated machine with a daemon.  ``name`` is its host name, unique on this machine."""

    name: str
    hypervisor: Hypervisor = INCUS
    root: Path = field(default_factory=lambda: scratch_directory("host"))
    cable: Cable | None = None
    _number: Number | None = None
    _unshare: subprocess.Popen[bytes] | None = None
    _init_pid: int = 0
    _forwarding: Forwarding | None = None

    # ---- the machine

    def start(self) -> None:
        """Switch it on and start its daemon; returns when that answers.  State of an earlier life is kept."""
        _allow_many_guests()
        (self.root / "ready").unlink(missing_ok=True)
        (self.root / "resolv.conf").write_text(_name_servers())
        hierarchies = _cgroup_hierarchies()
        for hierarchy in hierarchies:
            own = hierarchy / self.name
            own.mkdir(exist_ok=True)
            for setting in (
                "cpuset.cpus",
                "cpuset.mems",
            ):  # cgroup v1 wants them filled before a process enters
                if (hierarchy / setting).exists():
                    (own / setting).write_text((hierarchy / setting).read_text())
        # Which address is free shows only once there is a namespace to plug the cable into; the init waits at
        # this pipe for the answer.
        gate = self.root / "network"
        gate.unlink(missing_ok=True)
        os.mkfifo(gate)
        self._unshare = subprocess.Popen(
            ["unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--kill-child",
             "bash", "-c", f'. {gate}; exec {HERE / "host-init"}'],
            env={
                "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "HOST_NAME": self.name,
                "HOST_ROOT": str(self.root),
                "HOST_CGROUPS": " ".join(map(str, hierarchies)),
            },
            stdin=subprocess.DEVNULL,
            stdout=(self.root / "init.log").open("wb"),
            stderr=subprocess.STDOUT,
            preexec_fn=die_with_parent,
            start_new_session=True,
        )  # fmt: skip
        self._init_pid = self._first_child(self._unshare.pid)
        self._number = self._number or Number()
        self.cable = cable = Cable.plug(self._init_pid, self._number)
        self._forwarding = Forwarding(cable)
        gate.write_text(f"export HOST_ADDRESS={cable.address} HOST_GATEWAY={cable.gateway}\n")
        self._wait_for((self.root / "ready").exists, "the host", self.root / "init.log")
        self.start_daemon()

    def kill(self) -> None:
        """Pull the plug.  Its disk and its address are kept: :meth:`start` brings the same machine back."""
        if self._unshare is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._init_pid, signal.SIGKILL)
            self._unshare.wait()
            self._unshare = None
        if self.cable is not None:
            self.cable.unplug()
        if self._forwarding is not None:
            self._forwarding.stop()
            self._forwarding = None
        wait_until(self._is_gone, f"the end of {self.name}")

    def stop(self) -> None:
        """Pull the plug and throw the machine away."""
        self.kill()
        if self._number is not None:
            self._number.release()
            self._number = None
        shutil.rmtree(self.root, ignore_errors=True)

    def exec(
        self, *command: str, stdin: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run ``command`` on the host, as root.  With ``check``, a failure is a :class:`TestbedError`."""
        done = subprocess.run(self._inside(command), input=stdin, capture_output=True, text=True)
        if check and done.returncode:
            raise TestbedError(
                f"{' '.join(command)} on {self.name}: {done.stderr.strip() or done.stdout.strip()}"
            )
        return done

    # ---- its daemon

    @property
    def daemon_directory(self) -> Path:
        """The daemon's own directory."""
        return self.root / self.hypervisor.family

    @property
    def socket(self) -> Path:
        """The daemon's API socket, reachable from outside the host."""
        return self.daemon_directory / "unix.socket"

    def start_daemon(self) -> None:
        """Start the daemon and wait until it answers."""
        self.daemon_directory.mkdir(mode=0o711, exist_ok=True)
        log = self.root / "daemon.log"
        self.exec(
            "sh", "-c",
            'setsid env "$1" PATH=/usr/libexec/incus:$PATH "$2" --group root --logfile "$3" '
            '</dev/null >"$3.out" 2>&1 & echo $! >"$3.pid"',
            "sh", self._environment, str(self.hypervisor.daemon), str(log),
        )  # fmt: skip
        self._wait_for(self._daemon_answers, self.hypervisor.daemon.name, log)

    def kill_daemon(self) -> None:
        """End the daemon with SIGKILL; its guests go on running."""
        script = 'pid=$(cat "$1"); kill -9 "$pid"; while kill -0 "$pid" 2>/dev/null; do sleep 0.02; done'
        self.exec("sh", "-c", script, "sh", str(self.root / "daemon.log.pid"))

    def restart_daemon(self) -> None:
        """Kill the daemon and start it again."""
        self.kill_daemon()
        self.start_daemon()

    def cli(
        self, *arguments: str, stdin: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """The hypervisor's own command line, as an independent witness of what IceShelves did."""
        return self._own(self.hypervisor.client, "--force-local", *arguments, stdin=stdin, check=check)

    def set_up(self) -> None:
        """Give a new daemon a pool, a bridge and a default profile, as its own first-time set-up would."""
        self.configure(_PRESEED)

    def configure(self, preseed: str) -> None:
        """Configure a new daemon by ``preseed``, in the words of its own first-time set-up."""
        self._own(*self.hypervisor.first_setup, stdin=preseed)

    def import_image(self, files: tuple[Path, Path], alias: str) -> None:
        """Import an image from its metadata and its root file system."""
        self.cli("image", "import", *map(str, files), "--alias", alias)

    # ---- inside

    def _is_gone(self) -> bool:
        """Whether the kernel has taken everything back; it needs a moment after the last process."""
        unplugged = self.cable is None or not Path(f"/sys/class/net/{self.cable.card}").exists()
        return unplugged and all(_remove_cgroup(top / self.name) for top in _cgroup_hierarchies())

    def _daemon_answers(self) -> bool:
        return self.socket.exists() and self.cli("query", "/1.0", check=False).returncode == 0

    @property
    def _environment(self) -> str:
        return f"{self.hypervisor.directory}={self.daemon_directory}"

    def _own(
        self, *command: str, stdin: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        return self.exec("env", self._environment, f"HOME={self.root}", *command, stdin=stdin, check=check)

    def _inside(self, command: Sequence[str]) -> list[str]:
        hierarchies = " ".join(f"{hierarchy}/{self.name}" for hierarchy in _cgroup_hierarchies())
        join = f'for group in {hierarchies}; do echo 0 >"$group/cgroup.procs"; done; exec "$@"'
        return ["nsenter", f"--target={self._init_pid}", "--mount", "--net", "--pid", "--uts", "--ipc",
                "sh", "-c", join, "sh", *command]  # fmt: skip

    def _first_child(self, pid: int) -> int:
        children = Path(f"/proc/{pid}/task/{pid}/children")
        wait_until(lambda: children.exists() and bool(children.read_text().strip()), "unshare")
        return int(children.read_text().split()[0])

    def _wait_for(self, condition: Callable[[], bool], what: str, log: Path) -> None:
        try:
            wait_until(condition, what)
        except TestbedError as failure:
            tail = log.read_text(errors="replace").splitlines()[-15:] if log.exists() else []
            self.stop()
            raise TestbedError("\n  ".join([f"{failure} on {self.name}", *tail])) from None


def _remove_cgroup(own: Path) -> bool:
    """Remove ``own`` and what is below it, as far as it is empty; whether it is gone."""
    for path, _, _ in os.walk(own, topdown=False):
        with contextlib.suppress(OSError):
            Path(path).rmdir()
    return not own.exists()


_PRESEED: Final = """\
config: {images.auto_update_interval: "0"}
storage_pools: [{name: default, driver: dir}]
networks:
- name: testbr0
  type: bridge
  config: {ipv4.address: 10.68.0.1/22, ipv4.nat: "true", ipv6.address: none}
profiles:
- name: default
  devices:
    root: {type: disk, path: /, pool: default}
    eth0: {type: nic, name: eth0, network: testbr0}
"""


@contextlib.contextmanager
def running_host(name: str, hypervisor: Hypervisor = INCUS) -> Iterator[Host]:
    """A host with a daemon that is set up, for as long as the block lasts."""
    host = Host(name, hypervisor)
    try:
        host.start()
        host.set_up()
        yield host
    finally:
        host.stop()
