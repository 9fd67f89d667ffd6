"""Planned failures: which call goes wrong, and how."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Final

from iceshelves.core.errors import Conflict, Denied, Failed, IceShelvesError, Temporary
from iceshelves.providers.fake.script import Fault, Script

_REFUSALS: Final[Mapping[str, Callable[[str], IceShelvesError]]] = {
    "temporary": lambda words: Temporary(words, code="hypervisor_unreachable", delay=0.01),
    "failed": lambda words: Failed(f"The hypervisor failed: {words}", code="hypervisor_failed"),
    "conflict": lambda words: Conflict(words, code="already_exists"),
    "denied": lambda words: Denied(words, code="hypervisor_denied"),
}


def fault_of(script: Script, action: str, instance: str, count: Callable[[int], int]) -> Fault | None:
    """The fault that this call of ``action`` meets.

    ``count`` is asked once for each fault that concerns the call, by its place in the script, and says the
    how-manieth such call this is.
    """
    met: Fault | None = None
    for place, fault in enumerate(script.faults):
        if fault.action == action and fnmatchcase(instance, fault.instance):
            nth = count(place)
            if met is None and (not fault.nth or nth in fault.nth):
                met = fault
    return met


async def before(fault: Fault | None) -> None:
    """Go wrong before anything is done: refuse, or never answer."""
    if fault is None or fault.kind == "disconnect":
        return
    if fault.kind == "hang":
        await asyncio.Event().wait()
    raise _REFUSALS[fault.kind](fault.message)


def after(fault: Fault | None) -> None:
    """Go wrong when the work is done, and only its answer is lost."""
    if fault is not None and fault.kind == "disconnect":
        raise _REFUSALS["temporary"](fault.message)
