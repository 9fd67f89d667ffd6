"""``doctor``: what a support engineer would ask first, each answer with what to do about it."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from iceshelves import __version__
from iceshelves.cli.app import App, pass_app
from iceshelves.cli.checks import check_line, state_of
from iceshelves.cli.client import segment
from iceshelves.cli.output import Output, output_options
from iceshelves.cli.problems import ERROR
from iceshelves.cli.text import printable
from iceshelves.core.errors import IceShelvesError

_API: Final = "1.0"
_SOCKETS: Final = (
    "/var/lib/incus/unix.socket",
    "/var/snap/lxd/common/lxd/unix.socket",
    "/var/lib/lxd/unix.socket",
)


@dataclass(frozen=True, slots=True)
class Check:
    """One answer; ``ok`` is ``None`` for a fact that is neither good nor bad."""

    name: str
    ok: bool | None
    message: str
    remedy: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {"name": self.name, "ok": self.ok, "message": self.message, "remedy": self.remedy}


@click.command()
@output_options
@pass_app
def doctor(app: App, output: Output) -> int:
    """Check the set-up, and say what to do about it.

    This machine, the server, your token and every cluster are checked; the status is 1 if anything is wrong.
    """
    checks = []
    for check in (*_here(), *_there(app)):
        checks.append(check)
        if output.is_for_people:
            _tell(check)
    if not output.is_for_people:
        output.one({"checks": [check.to_json() for check in checks]}, str)
    return ERROR if any(check.ok is False for check in checks) else 0


def _here() -> Iterator[Check]:
    yield Check(
        "python",
        sys.version_info >= (3, 11),
        f"{platform.python_version()} at {sys.executable}",
        "Install Python 3.11 or newer.",
    )
    for path in _SOCKETS:
        if Path(path).is_socket():
            usable = os.access(path, os.R_OK | os.W_OK)
            yield Check(
                "hypervisor here",
                usable,
                f"{path} {'can' if usable else 'cannot'} be used",
                "Run the server as root, or add its user to the socket's group (incus-admin or lxd).",
            )
            return
    yield Check("hypervisor here", None, "no Incus or LXD socket on this machine")


def _there(app: App) -> Iterator[Check]:
    """The server and everything behind it; ends where going on makes no sense."""
    try:
        server = app.server()
    except IceShelvesError as error:
        yield _bad("login", error)
        return
    yield Check("login", True, server.url)
    if not server.is_private:
        yield Check(
            "encryption", False, "the token travels in clear", "Use https, or a tunnel to the server."
        )
    about = _ask("server", lambda: app.client.get("/api"))
    yield about if isinstance(about, Check) else _versions(about)
    if isinstance(about, Check):
        return
    health = _ask("health", lambda: app.client.get("/api/healthz"))
    yield health if isinstance(health, Check) else _healthy(health)
    me = _ask("token", lambda: app.client.get("/api/whoami"))
    yield me if isinstance(me, Check) else Check("token", True, f"{me['name']}, {me['role']}")
    if not isinstance(me, Check):
        yield from _clusters(app)


def _versions(about: dict[str, Any]) -> Check:
    fits = str(about.get("api_version")).split(".")[0] == _API.split(".")[0]
    message = f"{about.get('version')}, API {about.get('api_version')}; this client is {__version__}"
    return Check("server", fits, message, "Install the client of the server's version.")


def _healthy(health: dict[str, Any]) -> Check:
    message = f"{health.get('status')}, database {health.get('database')}"
    return Check("health", health.get("status") == "healthy", message, "See the server's log.")


def _clusters(app: App) -> Iterator[Check]:
    names = _ask("clusters", lambda: [c["name"] for c in app.client.items("/api/clusters", "clusters")])
    if isinstance(names, Check):
        yield names
        return
    if not names:
        yield Check("clusters", None, "none yet", "iceshelves cluster add local")
    for name in names:
        yield from _cluster_checks(app, str(name))


def _cluster_checks(app: App, name: str) -> Iterator[Check]:
    report = _ask(f"cluster {name}", lambda: app.client.post(f"/api/clusters/{segment(name)}/test"))
    if isinstance(report, Check):
        yield report
        return
    details = report.get("details") or {}
    for check in details.get("checks") or []:
        title = f"cluster {name}: {check['name']}"
        tried = state_of(check) != "not_tried"
        message = str(check.get("message") or "") if tried else "not tried"
        yield Check(title, bool(check["ok"]) if tried else None, message, check.get("remedy"))
    if not details.get("checks"):
        yield Check(f"cluster {name}", report.get("status") == "active", str(details.get("message") or ""))


def _ask(name: str, question: Callable[[], Any]) -> Any:
    """The answer, or the check that says why there is none."""
    try:
        return question()
    except IceShelvesError as error:
        return _bad(name, error)


def _bad(name: str, error: IceShelvesError) -> Check:
    return Check(name, False, error.message, error.hint)


def _tell(check: Check) -> None:
    if check.ok is None:
        click.echo(f"· {check.name}: {printable(check.message)}")
    else:
        click.echo(check_line(check.ok, check.name, check.message))
    if check.remedy and not check.ok:
        click.echo(f"    {printable(check.remedy)}")
