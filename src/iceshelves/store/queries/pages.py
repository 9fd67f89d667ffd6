"""One page of a list, and how many rows there are in all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.orm import InstrumentedAttribute, Session

#: rows and selects of whatever columns: their readers know them by name
Row: TypeAlias = Any
Query: TypeAlias = sa.Select[*tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Window:
    """Which rows of a list are wanted; pages count from 1."""

    page: int = 1
    per_page: int = 20

    @property
    def offset(self) -> int:
        """How many rows come before."""
        return (self.page - 1) * self.per_page


@dataclass(frozen=True, slots=True)
class Slice:
    """The rows of one page; ``total`` counts those of all pages."""

    rows: Sequence[Row]
    total: int
    window: Window

    @property
    def pages(self) -> int:
        """How many pages there are; none for an empty list."""
        return -(-self.total // self.window.per_page)


def fetch(session: Session, query: Query, window: Window) -> Slice:
    """The rows of ``query`` in ``window``.  A short first page is not counted again."""
    rows = session.execute(query.offset(window.offset).limit(window.per_page)).all()
    if window.page == 1 and len(rows) < window.per_page:
        return Slice(rows, len(rows), window)
    counted = sa.select(sa.func.count()).select_from(query.order_by(None).subquery())
    return Slice(rows, session.execute(counted).scalar_one(), window)


def mentions(words: str, *columns: InstrumentedAttribute[str]) -> sa.ColumnElement[bool]:
    """Whether one of ``columns`` holds ``words``, whatever their case."""
    wanted = words.lower()
    return sa.or_(*(sa.func.lower(column).contains(wanted, autoescape=True) for column in columns))
