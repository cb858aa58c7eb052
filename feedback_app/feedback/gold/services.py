"""Adding completions to the gold set and removing them."""

from django.db import transaction

from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import User
from feedback_app.feedback.examples.services import examples_refresh
from feedback_app.feedback.models import Adjudication, Completion, GoldItem, Verdict
from feedback_app.web.errors import UserError


def gold_mark(*, completion: Completion, verdict: Verdict, why: str, by: User) -> GoldItem:
    """Add a completion to the gold set and take it out of the queue.

    Votes no longer decide its example: it has the right verdict with full weight. Raise UserError
    if the completion is gold already or its text is empty.
    """
    with transaction.atomic():
        locked = Completion.objects.select_for_update().get(pk=completion.pk)
        if locked.gold:
            raise UserError("This answer is already in the gold set.")
        if not locked.text.strip():
            raise UserError("An empty answer can't be in the gold set. Choose another answer.")
        item = GoldItem.objects.create(
            completion=locked,
            project_id=locked.project_id,
            verdict=verdict,
            why=why,
            by=by,
            was_queued=locked.queued,
        )
        locked.gold, locked.decided, locked.queued = True, verdict, False
        locked.save(update_fields=["gold", "decided", "queued"])
        # its verdict is known, so no adjudication is needed
        Adjudication.objects.filter(completion=locked, open=True).update(open=False)
        examples_refresh([locked.pk])
        audit(project=locked.project, actor=by, action="gold.mark", target=str(item))
    return item


def gold_unmark(*, item: GoldItem, by: User) -> None:
    """Remove a completion from the gold set and delete the answers to it.

    Its votes decide again, or an earlier adjudication.
    """
    with transaction.atomic():
        locked = Completion.objects.select_for_update().get(pk=item.completion_id)
        before = Adjudication.objects.filter(completion=locked).values_list("verdict", flat=True)
        locked.gold, locked.queued = False, item.was_queued
        locked.decided = before.first() or ""
        locked.save(update_fields=["gold", "decided", "queued"])
        audit(project=locked.project, actor=by, action="gold.unmark", target=str(item))
        item.delete()
        examples_refresh([locked.pk])
