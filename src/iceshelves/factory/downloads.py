"""How often which file of a registry was fetched, and by which kind of client."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from iceshelves.core import clock
from iceshelves.store.database import Database
from iceshelves.store.models import Download

#: by the first word of their User-Agent
_FAMILIES: Final = {"incus": "incus", "lxd": "lxd"}
Key = tuple[int, str, str]


class Downloads:
    """Counts in memory, and writes the sums down once in a while; may be used from several threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._counted: Counter[Key] = Counter()
        self._lock = threading.Lock()

    def count(self, tenant_id: int, sha256: str, user_agent: str) -> None:
        """Count one fetch of a whole file."""
        family = _FAMILIES.get(user_agent.split(" ", 1)[0].lower(), "other")
        with self._lock:
            self._counted[tenant_id, sha256, family] += 1

    def write(self) -> None:
        """Write down what was counted.  What cannot be written now is kept."""
        with self._lock:
            counted, self._counted = self._counted, Counter()
        if not counted:
            return
        try:
            with self._database.write() as session:
                for key, number in counted.items():
                    _add(session, key, number, clock.now())
        except Exception:
            with self._lock:
                self._counted.update(counted)
            raise

    def of(self, tenant_id: int) -> dict[str, int]:
        """How often each file of a tenant was fetched, by its SHA-256."""
        query = (
            sa.select(Download.sha256, sa.func.sum(Download.number))
            .where(Download.tenant_id == tenant_id)
            .group_by(Download.sha256)
        )
        with self._database.read() as session:
            found = {sha256: int(number) for sha256, number in session.execute(query)}
        with self._lock:
            for (tenant, sha256, _), number in self._counted.items():
                if tenant == tenant_id:
                    found[sha256] = found.get(sha256, 0) + number
        return found


def _add(session: Session, key: Key, number: int, now: datetime) -> None:
    row = session.get(Download, key, with_for_update=True)
    if row is None:
        tenant_id, sha256, family = key
        row = Download(tenant_id=tenant_id, sha256=sha256, family=family, number=0)
        session.add(row)
    row.number += number
    row.last_on = now
