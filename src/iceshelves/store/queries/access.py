"""Users and the audit log."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from iceshelves.store.models import AuditEntry, Tenant, User
from iceshelves.store.queries.pages import Slice, Window, fetch


def users(session: Session, tenant_id: int, window: Window) -> Slice:
    """Users by name, the deactivated ones too."""
    query = (
        sa.select(User.id, User.name, User.role, User.is_active, User.created_on)
        .where(User.tenant_id == tenant_id)
        .order_by(User.name)
    )
    return fetch(session, query, window)


def audit(session: Session, tenant_id: int, window: Window) -> Slice:
    """What was done and what was refused, the newest first."""
    query = (
        sa.select(
            AuditEntry.id, AuditEntry.timestamp, AuditEntry.actor, AuditEntry.action, AuditEntry.object,
            AuditEntry.outcome, AuditEntry.request_id, AuditEntry.details,
        )
        .where(AuditEntry.tenant_id == tenant_id)
        .order_by(AuditEntry.id.desc())
    )  # fmt: skip
    return fetch(session, query, window)


def tenant_name(session: Session, tenant_id: int) -> str:
    """The name of a tenant that is there."""
    return session.execute(sa.select(Tenant.name).where(Tenant.id == tenant_id)).scalar_one()
