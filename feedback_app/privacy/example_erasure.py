"""Erasing one answer with its votes and its example."""

from django.db import transaction
from django.db.models import Exists, OuterRef
from django.utils import timezone

from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import User
from feedback_app.feedback.models import Completion, Figures, Prompt, Source
from feedback_app.privacy.erasure import due_after, used_text
from feedback_app.training.forgetting.snapshots import ENDED, failed_run_files_remove
from feedback_app.training.models import Erasure, Run, SnapshotItem


def example_erase(*, completion: Completion, by: User) -> Erasure:
    """Erase an answer from the project and from all snapshots. A question of the demo or the API
    is deleted with its last answer."""
    project, number = completion.project, completion.pk
    with transaction.atomic():
        Completion.objects.select_for_update().get(pk=number)
        used = SnapshotItem.objects.filter(completion=number)
        learned = project.runs.exclude(status__in=ENDED).exclude(trigger=Run.Trigger.IMPORTED)
        runs = learned.filter(Exists(used.filter(snapshot=OuterRef("snapshot"))))
        numbers = list(runs.order_by("number").values_list("number", flat=True))
        erasure = Erasure.objects.create(
            project=project,
            completion=number,
            account=False,
            by=by,
            runs=numbers,
            due_at=due_after(numbers),
            votes=completion.votes.count(),
            examples_gone=int(hasattr(completion, "example")),
            finished_at=timezone.now(),
        )
        failed_run_files_remove(list(used.values_list("snapshot", flat=True)))
        prompt = completion.prompt
        completion.delete()
        if prompt.source in (Source.DEMO, Source.API) and not prompt.completions.exists():
            Prompt.objects.filter(pk=prompt.pk).delete()
        Figures.objects.filter(project=project).delete()
        audit(
            project=project,
            actor=by,
            action="example.erase",
            target=erasure.subject,
            reason=used_text(erasure),
        )
    return erasure
