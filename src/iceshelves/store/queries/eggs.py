"""Eggs: the library as a list, and one egg by number, name or ``name@version``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from iceshelves.core.errors import NotFound
from iceshelves.store.models import Deployment, Egg, Revision
from iceshelves.store.queries.pages import Row, Slice, Window, fetch, mentions

_LISTED: Final = (
    Egg.id, Egg.name, Egg.version, Egg.display_name, Egg.description, Egg.category, Egg.egg_type,
    Egg.base_image, Egg.tags, Egg.author, Egg.digest, Egg.builtin, Egg.latest, Egg.is_active,
    Egg.created_by, Egg.created_on, Egg.updated_on,
)  # fmt: skip
_MAX_ID: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class EggFilter:
    """What to list; an empty field does not filter."""

    category: str | None = None
    egg_type: str | None = None
    tag: str | None = None
    search: str | None = None
    every_version: bool = False


def page(session: Session, tenant_id: int, wanted: EggFilter, window: Window) -> Slice:
    """Eggs by name, and by age within a name, the newest first."""
    query = sa.select(*_LISTED).where(Egg.tenant_id == tenant_id)
    if not wanted.every_version:
        query = query.where(Egg.latest)
    if wanted.category:
        query = query.where(Egg.category == wanted.category)
    if wanted.egg_type:
        query = query.where(Egg.egg_type == wanted.egg_type)
    if wanted.tag:
        # a list of strings as JSON text; both databases keep it as it was written
        query = query.where(sa.cast(Egg.tags, sa.Text).contains(json.dumps(wanted.tag), autoescape=True))
    if wanted.search:
        query = query.where(mentions(wanted.search, Egg.name, Egg.display_name, Egg.description))
    return fetch(session, query.order_by(Egg.name, Egg.id.desc()), window)


def find(session: Session, tenant_id: int, reference: str) -> Row:
    """The egg that ``reference`` names: its number, its name (the latest version), or ``name@version``.

    The row has the listed columns, ``metadata_json`` and ``archive``.  Raises :class:`NotFound`.
    """
    row = session.execute(
        sa.select(*_LISTED, Egg.metadata_json, Egg.archive).where(
            Egg.tenant_id == tenant_id, _named(reference)
        )
    ).one_or_none()
    if row is None:
        raise missing(reference)
    return row


def id_of(session: Session, tenant_id: int, reference: str) -> int:
    """The number of the egg that ``reference`` names.  Raises :class:`NotFound`."""
    found: int | None = session.execute(
        sa.select(Egg.id).where(Egg.tenant_id == tenant_id, _named(reference))
    ).scalar_one_or_none()
    if found is None:
        raise missing(reference)
    return found


def versions(session: Session, tenant_id: int, name: str) -> list[Row]:
    """All versions of one egg, the newest import first."""
    query = (
        sa.select(Egg.id, Egg.version, Egg.digest, Egg.latest, Egg.is_active, Egg.created_on)
        .where(Egg.tenant_id == tenant_id, Egg.name == name)
        .order_by(Egg.id.desc())
    )
    return list(session.execute(query).all())


def users(session: Session, egg_id: int) -> tuple[list[str], bool]:
    """The instances of living deployments that use the egg, and whether any record at all names it."""
    living = (
        sa.select(Deployment.instance_name)
        .where(Deployment.egg_id == egg_id, Deployment.living)
        .order_by(Deployment.instance_name)
    )
    recorded = sa.select(
        sa.or_(
            sa.exists().where(Deployment.egg_id == egg_id),
            sa.exists().where(Revision.egg_id == egg_id),
        )
    )
    return list(session.execute(living).scalars()), bool(session.execute(recorded).scalar_one())


def missing(reference: str) -> NotFound:
    """What is said of an egg that is not there, or is another tenant's."""
    return NotFound(
        f"There is no egg {reference!r}.",
        code="egg_not_found",
        hint="iceshelves egg list shows what is there.",
    )


def _named(reference: str) -> sa.ColumnElement[bool]:
    if reference.isascii() and reference.isdigit():
        number = int(reference) if len(reference) <= 10 else 0
        return Egg.id == (number if number <= _MAX_ID else 0)
    name, at, version = reference.partition("@")
    if at:
        return sa.and_(Egg.name == name, Egg.version == version)
    return sa.and_(Egg.name == name, Egg.latest)
