"""A real sshd on a test host, into which one key may log in as root; it ends with the host."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from iceshelves.connections.ssh_keys import KeyPair, make_key_pair
from iceshelves.connections.values import SshHop, SshSocket
from testbed.hosts import Host, TestbedError, wait_until

PROGRAM: Final = Path("/usr/sbin/sshd")
ANYWHERE: Final = "0.0.0.0"  # of the host, which only this machine reaches


def missing_for_sshd() -> str | None:
    """Why no sshd can be started here; ``None`` when it can."""
    absent = [tool for tool in ("ssh-keygen", "ssh-agent", "ssh-add", "ssh") if not shutil.which(tool)]
    if not PROGRAM.exists():
        absent.append(str(PROGRAM))
    return "not installed: " + ", ".join(absent) if absent else None


@dataclass
class Sshd:
    """An sshd of ``host``.  ``keys`` may log in; more ``options`` are lines of sshd_config."""

    host: Host
    keys: KeyPair
    port: int = 22
    listen: str = ANYWHERE
    options: tuple[str, ...] = ()

    @property
    def hop(self) -> SshHop:
        """This sshd as a way to get to the host, or through it."""
        if self.host.cable is None:
            raise TestbedError(f"{self.host.name} is off")
        address = self.host.cable.address if self.listen == ANYWHERE else self.listen
        return SshHop(address, "root", self.host_key, self.port)

    @property
    def connection(self) -> SshSocket:
        """The host's daemon through this sshd."""
        return SshSocket((self.hop,), str(self.host.socket), self.keys.private, image_servers=())

    def through(self, jump: Sshd) -> SshSocket:
        """The host's daemon through another sshd and this one."""
        return replace(self.connection, hops=(jump.hop, self.hop))

    @property
    def host_key(self) -> str:
        """The key that it shows, without a comment."""
        return " ".join((self.folder / "host.pub").read_text().split()[:2])

    @property
    def folder(self) -> Path:
        """Its own files."""
        return self.host.root / f"sshd-{self.port}"

    def start(self) -> None:
        """Start it; its host key is kept from an earlier life."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        if not (self.folder / "host").exists():
            self.change_host_key()
        self.authorise(self.keys.public)
        (self.folder / "config").write_text(self._config)
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self.host.exec(str(PROGRAM), "-f", str(self.folder / "config"), "-E", str(self.folder / "log"))
        wait_until(self._listens, f"sshd on {self.host.name}")

    def stop(self) -> None:
        """End it; connections that are open go on."""
        self.host.exec("sh", "-c", f"kill $(cat {self.folder / 'pid'})")
        wait_until(lambda: not (self.folder / "pid").exists(), f"the end of sshd on {self.host.name}")

    def cut(self) -> None:
        """Kill what serves the open connections, as abruptly as may be."""
        # newer ones serve a connection by a tree of processes
        end = 'end() { for child in $(pgrep -P "$1"); do end "$child"; kill -KILL "$child"; done; }'
        self.host.exec("sh", "-c", f'{end}; end "$(cat {self.folder / "pid"})" || true')

    def restart(self) -> None:
        """Cut all connections and start anew."""
        self.cut()
        self.stop()
        self.start()

    def change_host_key(self) -> None:
        """A new host key, as after the host was installed again; shown from the next start on."""
        for name in ("host", "host.pub"):
            (self.folder / name).unlink(missing_ok=True)
        pair = make_key_pair(self.host.name)
        (self.folder / "host").write_text(pair.private.reveal())
        (self.folder / "host").chmod(0o600)
        (self.folder / "host.pub").write_text(f"{pair.public}\n")

    def authorise(self, *lines: str) -> None:
        """Let in the keys in ``lines`` and no others."""
        (self.folder / "authorized_keys").write_text("\n".join(lines) + "\n")

    def processes(self) -> int:
        """How many connections it serves."""
        found = self.host.exec("sh", "-c", f'pgrep -c -P "$(cat {self.folder / "pid"})"', check=False)
        return int(found.stdout.strip() or 0)

    def _listens(self) -> bool:
        found = self.host.exec("ss", "-Hltn", f"sport = :{self.port}")
        return bool(found.stdout.strip()) and (self.folder / "pid").exists()

    @property
    def _config(self) -> str:
        return "\n".join(
            (
                f"Port {self.port}",
                f"ListenAddress {self.listen}",
                f"HostKey {self.folder / 'host'}",
                f"AuthorizedKeysFile {self.folder / 'authorized_keys'}",
                f"PidFile {self.folder / 'pid'}",
                "PermitRootLogin prohibit-password",
                "PasswordAuthentication no",
                "KbdInteractiveAuthentication no",
                "UsePAM no",
                # The folder is below one that everybody may write into.
                "StrictModes no",
                "LogLevel VERBOSE",
                *_patience(),
                *self.options,
                "",
            )
        )


@functools.cache
def _patience() -> tuple[str, ...]:
    """From 9.8 on sshd shuts out for a while whoever breaks off often, as a line full of faults does."""
    said = subprocess.run([PROGRAM, "-V"], capture_output=True, text=True)
    version = re.search(r"OpenSSH_(\d+)\.(\d+)", said.stdout + said.stderr)
    newer = version is not None and (int(version[1]), int(version[2])) >= (9, 8)
    return ("PerSourcePenalties no",) if newer else ()


@contextmanager
def running_sshd(
    host: Host, port: int = 22, listen: str = ANYWHERE, options: tuple[str, ...] = ()
) -> Iterator[Sshd]:
    """An sshd on ``host`` for as long as the block lasts."""
    sshd = Sshd(host, make_key_pair(f"test-{os.getpid()}"), port, listen, options)
    sshd.start()
    try:
        yield sshd
    finally:
        sshd.cut()
        sshd.stop()
