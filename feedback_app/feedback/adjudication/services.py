"""The last word on a completion: asking for it, giving it, taking it back."""

from django.db import transaction
from django.utils import timezone

from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import User
from feedback_app.feedback.examples.services import examples_refresh
from feedback_app.feedback.models import Completion, Resolution, Verdict
from feedback_app.web.errors import UserError


def resolution_ask(*, completion: Completion, why: str, by: User) -> Resolution:
    """Puts a completion before the resolver. Its example stays what it is until they decide."""
    with transaction.atomic():
        locked = Completion.objects.select_for_update().get(pk=completion.pk)
        if locked.gold:
            raise UserError("This answer is gold: its verdict is known. Change it under Gold.")
        resolution, _ = Resolution.objects.update_or_create(
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
    return resolution


def resolution_unask(*, completion: Completion, by: User) -> bool:
    """Takes the asking back; False if nothing was asked."""
    with transaction.atomic():
        locked = Completion.objects.select_for_update().get(pk=completion.pk)
        asked = Resolution.objects.filter(completion=locked, open=True)
        # an earlier decision stays
        dropped, _ = asked.filter(verdict="").delete()
        taken_back = dropped or asked.update(open=False)
        if taken_back:
            audit(
                project=locked.project, actor=by, action="resolution.unask", target=str(locked.pk)
            )
    return bool(taken_back)


def resolution_decide(
    *, completion: Completion, verdict: Verdict, why: str, by: User
) -> Resolution:
    """The resolver's verdict is the example from now on, with full weight, whatever votes come.

    Votes stay as they are: who disagrees has not judged wrongly.
    """
    with transaction.atomic():
        locked = Completion.objects.select_for_update().get(pk=completion.pk)
        if locked.gold:
            raise UserError("This answer is gold: its verdict is known. Change it under Gold.")
        resolution, _ = Resolution.objects.update_or_create(
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
    return resolution


def resolution_undo(*, completion: Completion, by: User) -> bool:
    """The votes decide again, and what was asked is open again; False if nothing was decided."""
    with transaction.atomic():
        locked = Completion.objects.select_for_update().get(pk=completion.pk)
        decided = Resolution.objects.filter(completion=locked).exclude(verdict="").first()
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
