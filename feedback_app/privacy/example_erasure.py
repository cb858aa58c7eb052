"""Erasing one answer with its votes and its example, and with what people wrote in its place."""

from django.db import transaction
from django.db.models import Exists, OuterRef
from django.utils import timezone

from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import User
from feedback_app.feedback.models import (
    Completion,
    Correction,
    Example,
    Figures,
    Project,
    Prompt,
    Source,
    Vote,
)
from feedback_app.privacy.erasure import due_after, used_text
from feedback_app.training.forgetting.gate_reports import questions_forget
from feedback_app.training.forgetting.snapshots import ENDED, failed_run_files_remove
from feedback_app.training.models import Erasure, Run, SnapshotItem
from feedback_app.web.errors import NotFound


def example_erase(*, completion: Completion, by: User) -> Erasure:
    """Erase an answer from the project and from all snapshots, with its corrections, which are the
    same text for the most part. A question of the demo or the API is deleted with its last answer.
    Raises NotFound for one that is gone already."""
    project, number = completion.project, completion.pk
    with transaction.atomic():
        # a snapshot that is being taken has this answer, and is found here, or is taken again
        Project.objects.select_for_update(no_key=True).get(pk=project.pk)
        if Completion.objects.select_for_update().filter(pk=number).first() is None:
            raise NotFound("This answer is erased already.")
        corrections = Correction.objects.filter(original=number)
        gone = [number, *corrections.values_list("completion", flat=True)]
        used = SnapshotItem.objects.filter(completion__in=gone)
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
            votes=Vote.objects.filter(completion__in=gone).count(),
            examples_gone=Example.objects.filter(completion__in=gone).count(),
            finished_at=timezone.now(),
        )
        failed_run_files_remove(list(used.values_list("snapshot", flat=True)))
        prompt = completion.prompt
        others = prompt.completions.exclude(pk__in=gone)
        last = prompt.source in (Source.DEMO, Source.API) and not others.exists()
        if last:
            questions_forget([prompt.pk])
        Completion.objects.filter(pk__in=gone).delete()
        if last:
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
