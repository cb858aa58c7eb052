"""The audit trail, written in the transaction of each action."""

from typing import Any

from feedback_app.accounts.models import AuditEvent, User


def audit(*, project: Any, actor: User | None, action: str, target: str, reason: str = "") -> None:
    """Record who did what. Call it in the transaction of the action."""
    AuditEvent.objects.create(
        project=project, actor=actor, action=action, target=target, reason=reason
    )
