"""Running something with a tree as its whole world.

What runs there has its own view of mounts, in which the host's files do not exist, no network unless asked
for, a read-only ``/proc``, six devices, no ``/sys``, and only the capabilities that package scripts need; so
a script that leaves a plain chroot leaves nothing here.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from iceshelves.core.errors import Failed, IceShelvesError, InvalidInput
from iceshelves.images.build import kernel
from iceshelves.images.build.commands import Say, stream

_DEVICES: Final = ("null", "zero", "full", "random", "urandom", "tty")
_LINKS: Final = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
_MAX_ANSWER: Final = 1024 * 1024

ENVIRONMENT: Final[Mapping[str, str]] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "DEBIAN_FRONTEND": "noninteractive",
    "DEBCONF_NONINTERACTIVE_SEEN": "true",
    # systemctl then writes links and starts nothing, as in a chroot
    "SYSTEMD_OFFLINE": "1",
}


@dataclass(frozen=True)
class Jail:
    """A tree that is furnished (:func:`furnished`) and can be entered; ``epoch`` stands still within."""

    root: Path
    epoch: int

    def run(self, argv: list[str], say: Say, *, stdin: bytes = b"") -> None:
        """Run a program of the tree, without network.  Raises :class:`Failed` as :func:`stream` does."""
        stream(argv, say, env=self._environment(), stdin=stdin, within=self._enter)

    def run_online(self, argv: list[str], say: Say, *, stdin: bytes = b"") -> None:
        """The same with the build's network, and the names that this machine can resolve."""
        resolver = Path("/etc/resolv.conf").read_bytes() if Path("/etc/resolv.conf").exists() else b""
        self.call(lambda: _write_resolver(resolver))
        stream(argv, say, env=self._environment(), stdin=stdin, within=self._enter_online)

    def call(self, function: Callable[[], Any]) -> Any:
        """``function`` runs in a process in the tree, so that every path and link means one of the tree.

        Its value must be JSON.  Modules must have been imported before.  Raises what it raises: errors of
        ours as they are, others as :class:`Failed` (``tree_refused``).
        """
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            _answer(writing, self._enter, function)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            text = pipe.read(_MAX_ANSWER + 1)
        os.waitpid(child, 0)
        return _value(text)

    def _environment(self) -> dict[str, str]:
        return {**ENVIRONMENT, "SOURCE_DATE_EPOCH": str(self.epoch)}

    def _enter(self) -> None:
        kernel.leave(kernel.NEW_MOUNTS | kernel.NEW_NETWORK)
        self._settle()

    def _enter_online(self) -> None:
        kernel.leave(kernel.NEW_MOUNTS)
        self._settle()

    def _settle(self) -> None:
        kernel.change_root(self.root)
        kernel.keep_capabilities(kernel.PACKAGE_CAPABILITIES)
        os.umask(0o022)


@contextmanager
def furnished(root: Path, epoch: int, shown: Mapping[str, Path]) -> Iterator[Jail]:
    """The tree at ``root``, a mount of its own, with what programs expect; gone again afterwards.

    ``shown`` are folders of the host that appear read-only below ``/run/build``, by name.
    Raises :class:`Failed` (``tree_refused``) where the kernel does not allow it.
    """
    with contextlib.ExitStack() as stack:
        try:
            for furnish in (_proc, _devices, _scratch):
                for mounted in furnish(root):
                    stack.callback(kernel.unmount, mounted)
            for name, folder in shown.items():
                show(folder, root / "run/build" / name)
        except OSError as error:
            raise Failed(
                f"The tree cannot be prepared: {error.strerror} ({error.filename}).",
                code="tree_refused",
                hint="Building needs root, or user namespaces with subordinate ids (package uidmap).",
            ) from error
        yield Jail(root, epoch)


def _proc(root: Path) -> Iterator[Path]:
    target = _folder(root, "proc")
    kernel.mount("/proc", target, flags=kernel.BIND | kernel.RECURSIVE)
    yield target
    # uid 0 could otherwise write to sysrq-trigger, which asks for no capability
    flags = (
        kernel.BIND
        | kernel.REMOUNT
        | kernel.READ_ONLY
        | kernel.NO_SET_ID
        | kernel.NO_DEVICES
        | kernel.NO_PROGRAMS
    )
    kernel.mount("", target, flags=flags)


def _devices(root: Path) -> Iterator[Path]:
    target = _folder(root, "dev")
    kernel.mount("none", target, "tmpfs", kernel.NO_SET_ID, "size=1m,mode=755")
    yield target
    for name in _DEVICES:
        node = target / name
        node.touch()
        kernel.mount(f"/dev/{name}", node, flags=kernel.BIND)
    for name, meaning in _LINKS.items():
        (target / name).symlink_to(meaning)
    (target / "shm").mkdir()


def _scratch(root: Path) -> Iterator[Path]:
    """What is written to these folders while building is no part of an image."""
    for name, mode in (("run", "755"), ("tmp", "1777")):
        target = _folder(root, name)
        kernel.mount("none", target, "tmpfs", kernel.NO_SET_ID | kernel.NO_DEVICES, f"mode={mode}")
        yield target
    (root / "run/lock").mkdir()


def show(folder: Path, target: Path) -> None:
    """Make ``folder``, with what is mounted in it, appear at the new folder ``target``, where nobody can
    change it.  What is mounted in it stays as changeable as it is.
    """
    target.mkdir(parents=True)
    kernel.mount(str(folder), target, flags=kernel.BIND | kernel.RECURSIVE)
    flags = kernel.BIND | kernel.REMOUNT | kernel.READ_ONLY | kernel.NO_SET_ID | kernel.NO_DEVICES
    kernel.mount("", target, flags=flags)


def _folder(root: Path, name: str) -> Path:
    """A folder directly below ``root``, which a package may not have replaced by a link."""
    target = root / name
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise InvalidInput(
            f"/{name} of the image is no folder.",
            code="tree_refused",
            hint="A package or action replaced it; leave the top folders as they are.",
        )
    target.mkdir(exist_ok=True)
    return target


def _write_resolver(content: bytes) -> None:
    """Where the images' /etc/resolv.conf points to; /run is scratch."""
    target = Path("/run/systemd/resolve/stub-resolv.conf")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)


def _answer(descriptor: int, enter: Callable[[], None], function: Callable[[], Any]) -> None:
    """In the child: do it, write down how it went, and end, whatever happens, without our clean-up."""
    try:
        answer: dict[str, Any]
        try:
            enter()
            answer = {"value": function()}
        except IceShelvesError as error:
            answer = {"error": [error.message, error.code, error.hint], "details": error.details}
        except (OSError, ValueError) as error:
            answer = {"error": [f"The tree could not be changed: {error}.", "tree_refused", None]}
        with os.fdopen(descriptor, "wb") as pipe:
            pipe.write(json.dumps(answer).encode())
    finally:
        os._exit(0)


def _value(text: bytes) -> Any:
    try:
        answer = json.loads(text)
    except ValueError as error:
        raise Failed("A step in the tree ended without an answer.", code="tree_refused") from error
    if "error" in answer:
        message, code, hint = answer["error"]
        raise Failed(message, code=code, hint=hint, details=answer.get("details"))
    return answer["value"]
