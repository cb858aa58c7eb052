"""What admins do with an answer of someone else's conversation."""

from django.db import transaction

from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import User
from feedback_app.feedback.models import Completion
from feedback_app.feedback.prompts.completions import completion_queue
from feedback_app.feedback.queue.services import item_skip
from feedback_app.web.errors import UserError


def answer_flag(*, completion: Completion, by: User, reason: str) -> bool:
    """Flag an answer: nobody is asked to judge it until an admin restores it. Return False if it
    is flagged already."""
    with transaction.atomic():
        locked = Completion.objects.select_for_update().get(pk=completion.pk)
        if locked.flagged:
            return False
        item_skip(completion=locked, by=by, flag=True, reason=reason)
        _record(locked, by, "conversation.flag", reason)
    return True


def answer_queue(*, completion: Completion, by: User) -> bool:
    """Put an answer into the annotation queue; return False if it is there already.

    Raises UserError for one that no annotator should get.
    """
    with transaction.atomic():
        locked = Completion.objects.select_for_update().get(pk=completion.pk)
        if locked.queued:
            return False
        if not locked.text.strip():
            raise UserError("This answer is empty: there is nothing to judge.")
        if locked.flagged:
            raise UserError("This answer is flagged: restore it on the Flags page first.")
        if locked.gold:
            raise UserError("This answer is a gold item: annotators get it already.")
        if locked.vote_count >= locked.project.overlap:
            raise UserError("This answer has as many votes as the project asks for.")
        completion_queue(locked)
        _record(locked, by, "conversation.queue")
    return True


def _record(completion: Completion, by: User, action: str, reason: str = "") -> None:
    audit(
        project=completion.project,
        actor=by,
        action=action,
        target=str(completion.pk),
        reason=reason,
    )
