"""Short programs in a guest, run to their end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from iceshelves.providers.base import ExecRequest, Guest, Provider, require

_OUTPUT_LIMIT: Final = 64 * 1024


async def execute(provider: Provider, instance: str, command: Sequence[str]) -> tuple[int, str]:
    """The exit status of ``command`` in ``instance``, and the first 64 KiB of what it said."""
    said = bytearray()
    guest = require(provider, Guest)
    async with await guest.exec(instance, ExecRequest(command)) as session:
        async for _stream, data in session.output():
            said += data[: _OUTPUT_LIMIT - len(said)]
        return await session.wait(), said.decode("utf-8", "replace").strip()
