"""Making answers gold, and no longer."""

from django.db import transaction

from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import User
from feedback_app.feedback.examples.services import examples_refresh
from feedback_app.feedback.models import Completion, GoldItem, Resolution, Verdict
from feedback_app.web.errors import UserError


def gold_mark(*, completion: Completion, verdict: Verdict, why: str, by: User) -> GoldItem:
    """Makes an answer gold. It leaves the queue and is slipped in among the others' items.

    Votes on it decide nothing from now on: its example is the right verdict with full weight.
    What people say of a gold item tells about them, not about the answer.
    """
    with transaction.atomic():
        locked = Completion.objects.select_for_update().get(pk=completion.pk)
        if locked.gold:
            raise UserError("This answer is gold already.")
        if not locked.text.strip():
            raise UserError("An empty answer can't be gold: choose one that can be judged.")
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
        # its verdict is known: nobody need look
        Resolution.objects.filter(completion=locked, open=True).update(open=False)
        examples_refresh([locked.pk])
        audit(project=locked.project, actor=by, action="gold.mark", target=str(item))
    return item


def gold_unmark(*, item: GoldItem, by: User) -> None:
    """The answer is one like any other again: its votes decide, or what a resolver decided
    before, and how people judged it is forgotten."""
    with transaction.atomic():
        locked = Completion.objects.select_for_update().get(pk=item.completion_id)
        before = Resolution.objects.filter(completion=locked).values_list("verdict", flat=True)
        locked.gold, locked.queued = False, item.was_queued
        locked.decided = before.first() or ""
        locked.save(update_fields=["gold", "decided", "queued"])
        audit(project=locked.project, actor=by, action="gold.unmark", target=str(item))
        item.delete()
        examples_refresh([locked.pk])
