"""Members of a cluster over the wire."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path

from iceshelves.server.schemas.common import Shown

#: a member's name, as the hypervisor has it
MemberPath = Annotated[
    str, Path(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9._-]+$", examples=["node-1"])
]


class MemberCapacity(Shown):
    """What a member has and what of it is used, in bytes; null where nobody knows.

    ``memory_used`` leaves out what the kernel would give back at once.  ``instances`` counts those of every
    project.
    """

    cpus: int
    memory: int
    memory_used: int
    storage: int | None
    storage_used: int | None
    instances: int | None


class MemberItem(Shown):
    """One machine of a cluster; ``status`` in the hypervisor's own words.

    ``automatic`` is false where instances are only placed by name.  ``capacity`` is null where the member
    did not say in time.
    """

    name: str
    online: bool
    evacuated: bool
    automatic: bool
    status: str
    message: str
    roles: list[str]
    capacity: MemberCapacity | None
