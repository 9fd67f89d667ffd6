"""The audit log: who did what to which object, and whether it was allowed."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from iceshelves.access.policy import Actor
from iceshelves.store.models import AuditEntry


def record(
    session: Session,
    actor: Actor,
    action: str,
    subject: str,
    *,
    outcome: str = "allowed",
    request_id: str = "",
    details: dict[str, Any] | None = None,
) -> None:
    """Add an entry in the transaction of the act itself, so that neither is there without the other."""
    session.add(
        AuditEntry(
            tenant_id=actor.tenant_id,
            actor=actor.name,
            action=action,
            object=subject[:200],
            outcome=outcome,
            request_id=request_id,
            details=details or {},
        )
    )
