"""The audit trail, written in the transaction of each action."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from feedback_app.accounts.models import TARGET_LENGTH, AuditEvent, User

#: Returns the client's address during a request; not set in workers and commands.
_address: ContextVar[Callable[[], str] | None] = ContextVar("audit_address", default=None)


def audit(*, project: Any, actor: User | None, action: str, target: str, reason: str = "") -> None:
    """Record who did what. Call it in the transaction of the action. What is longer than the column
    of `target` is cut; `reason` has any length."""
    address = _address.get()
    AuditEvent.objects.create(
        project=project,
        actor=actor,
        actor_number=None if actor is None else actor.pk,
        action=action,
        target=target[:TARGET_LENGTH],
        reason=reason,
        address="" if address is None else address(),
    )


@contextmanager
def audited_from(address: Callable[[], str]) -> Iterator[None]:
    """Record events in this block as coming from what `address` returns, asked when one is."""
    token = _address.set(address)
    try:
        yield
    finally:
        _address.reset(token)


def person_name(user: User) -> str:
    """Return a person's name in the audit trail: a number, so that erasure leaves no trace."""
    return f"person {user.pk}"
