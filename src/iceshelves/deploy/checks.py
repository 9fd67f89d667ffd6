"""An egg's checks, run in the guest: that is where they mean the same over every connection.

Ports and pages are tried by a few lines of Python, which every guest has: cloud-init is written in it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Final

from iceshelves.core.errors import Failed
from iceshelves.deploy.spec import CheckSpec
from iceshelves.deploy.work import Work
from iceshelves.providers.base import Guest, require
from iceshelves.providers.executing import execute

#: seconds; a try that began in time may take its own time-outs to say what is wrong
_GRACE: Final = 15.0
_PAUSES: Final = (0.2, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0)

# each prints why it failed, and tries until its time is over: one program in the guest for all tries
_PORT: Final = """
import socket, sys, time
port, end = int(sys.argv[1]), time.monotonic() + float(sys.argv[2])
while True:
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
        break
    except OSError as error:
        if time.monotonic() > end:
            sys.exit(f"port {port}: {error}")
        time.sleep(0.1)
"""
_HTTP: Final = """
import ssl, sys, time, urllib.error, urllib.request
url, status, text, end = sys.argv[1], int(sys.argv[2]), sys.argv[3], time.monotonic() + float(sys.argv[4])
own = ssl._create_unverified_context()  # a new instance's own certificate is its own word
handlers = urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=own)
opener = urllib.request.build_opener(*handlers)
while True:
    try:
        try:
            answer = opener.open(url, timeout=10)
        except urllib.error.HTTPError as error:
            answer = error
        body = answer.read(1 << 20).decode("utf-8", "replace")
        why = "" if answer.code == status else f"status {answer.code} instead of {status}"
        if not why and text not in body:
            why = f"the answer does not contain {text!r}"
    except Exception as error:
        why = str(error)
    if not why:
        break
    if time.monotonic() > end:
        sys.exit(f"{url}: {why}")
    time.sleep(0.1)
"""


async def run(work: Work, check: CheckSpec) -> None:
    """Run ``check`` until it passes or its time is over.  Raises :class:`Failed` with the guest's words."""
    started = time.monotonic()
    command = await _command(work, check)
    tries = 0
    while True:
        status, said = await _within(check, started, execute(work.provider, work.spec.instance, command))
        if status == 0:
            return
        left = check.timeout - (time.monotonic() - started)
        if left <= 0 or check.kind != "command":
            raise Failed(
                f"The check {check.name!r} did not pass: {_last_line(said) or f'exit status {status}'}",
                code="check_failed",
                hint="Look at the instance (iceshelves shell), correct the egg, then retry.",
                details={"check": check.name, "status": status, "guest": said.splitlines()[-10:]},
            )
        await asyncio.sleep(min(left, _PAUSES[min(tries, len(_PAUSES) - 1)]))
        tries += 1


async def _within(check: CheckSpec, started: float, tried: Awaitable[tuple[int, str]]) -> tuple[int, str]:
    """A program that hangs has failed once the check's time, and a little to say why, is over."""
    try:
        async with asyncio.timeout(check.timeout - (time.monotonic() - started) + _GRACE):
            return await tried
    except TimeoutError as error:
        raise Failed(
            f"The check {check.name!r} did not end within {check.timeout:.0f} s.",
            code="check_failed",
            hint="Look at the instance (iceshelves shell), correct the egg, then retry.",
            details={"check": check.name},
        ) from error


async def _command(work: Work, check: CheckSpec) -> tuple[str, ...]:
    if check.kind == "port":
        return ("python3", "-I", "-c", _PORT, str(check.port), str(check.timeout))
    if check.kind == "http":
        url = check.url or ""
        if "{address}" in url:
            url = url.replace("{address}", await _address(work))
        return (
            "python3",
            "-I",
            "-c",
            _HTTP,
            url,
            str(check.status),
            check.contains or "",
            str(check.timeout),
        )
    return check.command


async def _address(work: Work) -> str:
    found = await require(work.provider, Guest).addresses(work.spec.instance)
    if not found:
        return "127.0.0.1"
    return f"[{found[0]}]" if ":" in found[0] else found[0]


def _last_line(text: str) -> str:
    return text.splitlines()[-1][:500] if text else ""
