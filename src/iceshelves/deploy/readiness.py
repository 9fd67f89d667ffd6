"""Following a guest's cloud-init to its end: the output line by line, then its own verdict."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Final

from iceshelves.core.errors import Failed, NotFound, Temporary
from iceshelves.deploy import watch
from iceshelves.deploy.spec import USER_DATA_KEY
from iceshelves.deploy.watch import CloudInitResult, CloudInitStream
from iceshelves.deploy.work import Work
from iceshelves.providers.base import ExecRequest, ExecSession, Guest, require

#: seconds without a line after which the guest is asked whether cloud-init still runs
_SILENCE: Final = 15.0
_LAST_LINES: Final = 200
#: characters of the guest's output that are kept for one operation
_MAX_KEPT: Final = 16 * 1024 * 1024
_MAX_SAID: Final = 4096


async def follow(work: Work) -> list[str] | None:
    """Log the guest's output until cloud-init has finished.

    Returns its warnings, or ``None`` if the guest has no cloud-init.  Raises :class:`Failed` with what the
    guest said if cloud-init did not succeed, :class:`Temporary` if the connection to the guest was lost.
    """
    tail: deque[str] = deque(maxlen=_LAST_LINES)
    stream = CloudInitStream()
    guest = require(work.provider, Guest)
    async with await guest.exec(work.spec.instance, ExecRequest(watch.WATCH_COMMAND)) as session:
        seen = size = 0
        async for chunk in _chunks(session, work):
            for line in stream.feed(chunk):
                seen += 1
                tail.append(line)
                full, size = size > _MAX_KEPT, size + len(line) + 1
                if seen > work.guest_lines and not full:
                    work.report.log(line, source="guest")
                    if size > _MAX_KEPT:
                        work.report.log("The guest says too much; what follows is not kept.", "WARNING")
            if stream.result is not None:
                break
        else:
            if await session.wait() == watch.NO_CLOUD_INIT:
                return None
            raise Temporary("The connection to the guest was lost.", code="guest_connection_lost")
    return await _verdict(work, stream.result, list(tail))


async def _chunks(session: ExecSession, work: Work) -> AsyncIterator[bytes]:
    """What the guest prints; in a long silence, asks whether there is still something to wait for."""
    output = aiter(session.output())
    pending = asyncio.ensure_future(anext(output, None))
    try:
        while True:
            done, _ = await asyncio.wait([pending], timeout=_SILENCE)
            if not done:
                await _check_alive(work)
                continue
            chunk = pending.result()
            if chunk is None:
                return
            if chunk[0] == "stdout":
                yield chunk[1]
            pending = asyncio.ensure_future(anext(output, None))
    finally:
        pending.cancel()
        await asyncio.gather(pending, return_exceptions=True)


async def _check_alive(work: Work) -> None:
    guest = require(work.provider, Guest)
    said = bytearray()
    async with await guest.exec(work.spec.instance, ExecRequest(watch.STALL_COMMAND)) as session:
        async for stream, data in session.output():
            if stream == "stdout":
                said += data[: _MAX_SAID - len(said)]
            if len(said) >= _MAX_SAID:
                break
    words = said.decode("utf-8", "replace").split()
    if "disabled" in words:
        raise Failed(
            "cloud-init is disabled in this image, so the egg could not configure the instance.",
            code="cloud_init_disabled",
            hint="Use an image whose cloud-init is enabled and reads NoCloud.",
        )
    if words:
        raise Failed(
            f"cloud-init stopped before its end: {', '.join(words)} failed.",
            code="cloud_init_failed",
            hint="Look at the instance's journal: journalctl -u " + words[0],
        )


async def _verdict(work: Work, result: CloudInitResult, tail: list[str]) -> list[str]:
    if result.errors:
        said = watch.telling_lines(tail)
        raise Failed(
            f"cloud-init failed in the guest: {watch.plain_error(result.errors[0])}",
            code="cloud_init_failed",
            hint="The guest's own words are in the log; correct the egg or its parameters, then retry.",
            details={"errors": list(result.errors), "guest": said},
        )
    if result.datasource.endswith("None") and work.spec.config.get(USER_DATA_KEY):
        raise Failed(
            "cloud-init found no source of user-data in the guest, so the egg was not applied.",
            code="user_data_not_read",
            hint="The image must let cloud-init read NoCloud; the image's cloud variant does.",
        )
    try:
        status = await require(work.provider, Guest).read_file(
            work.spec.instance, watch.STATUS, limit=256 * 1024
        )
    except NotFound:
        return []
    warnings = watch.parse_warnings(status)
    for warning in warnings:
        work.report.log(f"cloud-init warns: {warning}", "WARNING")
    return warnings
