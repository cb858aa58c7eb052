"""The audit trail, written in the transaction of each action."""

from typing import Any

from feedback_app.accounts.models import AuditEvent, User


def audit(*, project: Any, actor: User | None, action: str, target: str, reason: str = "") -> None:
    """Record who did what. Call it in the transaction of the action."""
    AuditEvent.objects.create(
        project=project, actor=actor, action=action, target=target, reason=reason
    )


def person_name(user: User) -> str:
    """Return a person's name in the audit trail: a number, so that erasure leaves no trace."""
    return f"person {user.pk}"
