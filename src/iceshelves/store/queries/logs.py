"""Log lines.  Their ids grow, so an id is the place from which reading goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from iceshelves.store.models import LogLine
from iceshelves.store.queries.pages import Query, Row, Slice, Window, fetch

_SHOWN: Final = (
    LogLine.id, LogLine.timestamp, LogLine.log_level.label("level"), LogLine.message, LogLine.step,
    LogLine.source, LogLine.operation_id,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class LogFilter:
    """Which lines are wanted; ``after`` is the id of the last line that is known already."""

    deployment_id: int | None = None
    operation_id: str | None = None
    source: str | None = None
    level: str | None = None
    after: int = 0


def page(session: Session, tenant_id: int, wanted: LogFilter, window: Window) -> Slice:
    """Lines in the order in which they were written."""
    return fetch(session, _matching(tenant_id, wanted).order_by(LogLine.id), window)


def following(session: Session, tenant_id: int, wanted: LogFilter, limit: int) -> Sequence[Row]:
    """The next lines, at most ``limit``."""
    query = _matching(tenant_id, wanted).order_by(LogLine.id).limit(limit)
    return session.execute(query).all()


def last(session: Session, tenant_id: int, deployment_id: int, limit: int) -> Sequence[Row]:
    """The last ``limit`` lines of a deployment, the oldest of them first."""
    query = _matching(tenant_id, LogFilter(deployment_id=deployment_id))
    return session.execute(query.order_by(LogLine.id.desc()).limit(limit)).all()[::-1]


def _matching(tenant_id: int, wanted: LogFilter) -> Query:
    query = sa.select(*_SHOWN).where(LogLine.tenant_id == tenant_id)
    if wanted.deployment_id is not None:
        query = query.where(LogLine.deployment_id == wanted.deployment_id)
    if wanted.operation_id:
        query = query.where(LogLine.operation_id == wanted.operation_id)
    if wanted.source:
        query = query.where(LogLine.source == wanted.source)
    if wanted.level:
        query = query.where(LogLine.log_level == wanted.level)
    if wanted.after:
        query = query.where(LogLine.id > wanted.after)
    return query
