"""Adjudication: requesting, giving and undoing a final verdict on a completion."""

from django.db import transaction
from django.utils import timezone

from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import User
from feedback_app.feedback.examples.services import examples_refresh
from feedback_app.feedback.models import Adjudication, Completion, Verdict
from feedback_app.web.errors import UserError


def adjudication_request(*, completion: Completion, why: str, by: User) -> Adjudication:
    """Ask for an adjudication; the example stays as it is until then.

    Raise UserError for a gold item.
    """
    with transaction.atomic():
        locked = Completion.objects.select_for_update().get(pk=completion.pk)
        if locked.gold:
            raise UserError("This answer is in the gold set. Change its verdict on the Gold page.")
        adjudication, _ = Adjudication.objects.update_or_create(
            completion=locked,
            defaults={
                "project_id": locked.project_id,
                "open": True,
                "asked": why[:200],
                "asked_by": by,
                "asked_at": timezone.now(),
            },
        )
        audit(project=locked.project, actor=by, action="resolution.ask", target=str(locked.pk))
    return adjudication


def adjudication_withdraw(*, completion: Completion, by: User) -> bool:
    """Withdraw a request; return False if there was none."""
    with transaction.atomic():
        locked = Completion.objects.select_for_update().get(pk=completion.pk)
        asked = Adjudication.objects.filter(completion=locked, open=True)
        # an earlier decision stays
        dropped, _ = asked.filter(verdict="").delete()
        taken_back = dropped or asked.update(open=False)
        if taken_back:
            audit(
                project=locked.project, actor=by, action="resolution.unask", target=str(locked.pk)
            )
    return bool(taken_back)


def adjudication_decide(
    *, completion: Completion, verdict: Verdict, why: str, by: User
) -> Adjudication:
    """Make this verdict the example, with full weight, whatever the votes are.

    Votes stay as they are. Raise UserError for a gold item.
    """
    with transaction.atomic():
        locked = Completion.objects.select_for_update().get(pk=completion.pk)
        if locked.gold:
            raise UserError("This answer is in the gold set. Change its verdict on the Gold page.")
        adjudication, _ = Adjudication.objects.update_or_create(
            completion=locked,
            defaults={
                "project_id": locked.project_id,
                "open": False,
                "verdict": verdict,
                "why": why[:500],
                "by": by,
                "resolved_at": timezone.now(),
            },
        )
        locked.decided = verdict
        locked.save(update_fields=["decided"])
        examples_refresh([locked.pk])
        target = f"{verdict} on {locked.pk}"
        audit(project=locked.project, actor=by, action="resolution.decide", target=target)
    return adjudication


def adjudication_undo(*, completion: Completion, by: User) -> bool:
    """Undo a final verdict: the votes decide again and an earlier request is open again.

    Return False if there was none.
    """
    with transaction.atomic():
        locked = Completion.objects.select_for_update().get(pk=completion.pk)
        decided = Adjudication.objects.filter(completion=locked).exclude(verdict="").first()
        if decided is None:
            return False
        if decided.asked:
            decided.open, decided.verdict, decided.why = True, "", ""
            decided.by = decided.resolved_at = None
            decided.save()
        else:
            decided.delete()
        locked.decided = ""
        locked.save(update_fields=["decided"])
        examples_refresh([locked.pk])
        audit(project=locked.project, actor=by, action="resolution.undo", target=str(locked.pk))
    return True
