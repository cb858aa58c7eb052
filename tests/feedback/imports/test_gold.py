"""Gold items in an imported file: only new answers, only by admins, each refusal reported."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import call_command

from feedback_app.accounts.models import AuditEvent, Role, User
from feedback_app.feedback.gold.services import gold_unmark
from feedback_app.feedback.imports.chunks import GOLD_FOR_ADMINS, GOLD_OTHERWISE, NOT_MADE_GOLD
from feedback_app.feedback.imports.uploads import import_upload, preview
from feedback_app.feedback.models import (
    Completion,
    Example,
    GoldItem,
    ImportJob,
    Project,
    Vote,
)
from feedback_app.feedback.votes.services import vote_cast

pytestmark = pytest.mark.django_db


def row(number: int, **more: Any) -> dict[str, Any]:
    return {"prompt": f"Q{number}", "completion": f"A{number}", **more}


def load(path: Path, *rows: dict[str, Any], **options: Any) -> ImportJob:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    call_command("import_examples", path, project="bot", **options)
    return ImportJob.objects.latest("pk")


def refused(job: ImportJob) -> list[tuple[int, str]]:
    return list(job.refusals.order_by("pk").values_list("number", "reason"))


def test_gold_rows_become_gold_items_and_set_the_example(
    project: Project, admin: User, annotator: User, tmp_path: Path
) -> None:
    job = load(
        tmp_path / "a.jsonl",
        row(1, gold="down"),
        row(2, gold="up", label=True),
        row(3, label=False),
    )

    first, second, third = Completion.objects.order_by("pk")
    assert (job.imported, job.gold, job.refused) == (3, 2, 0)
    assert [(i.completion, i.verdict, i.by) for i in GoldItem.objects.order_by("pk")] == [
        (first, "down", admin),
        (second, "up", admin),
    ]
    assert (first.gold, first.decided, first.queued, first.vote_count) == (True, "down", False, 0)
    assert (third.gold, third.decided) == (False, "")
    assert list(Vote.objects.order_by("pk").values_list("completion", "verdict")) == [
        (second.pk, "up"),
        (third.pk, "down"),
    ]
    assert list(Example.objects.order_by("pk").values_list("desirable", "weight")) == [
        (False, 1.0),
        (True, 1.0),
        (False, 1.0),
    ]
    assert AuditEvent.objects.get(action="gold.import").reason == "2 answers"
    # handed out and voted on like any gold item
    assert set(Completion.objects.gold_for(annotator)) == {first, second}
    vote_cast(completion=first, verdict="up", by=annotator, source="annotate")
    assert Example.objects.get(completion=first).desirable is False
    assert first.gold_item.answers.get().right is False
    gold_unmark(item=first.gold_item, by=admin)
    assert Example.objects.get(completion=first).desirable is True


def test_existing_answers_are_unchanged_and_reported(
    project: Project, annotator: User, make_completions: Any, tmp_path: Path
) -> None:
    [waiting] = make_completions(1)
    load(tmp_path / "a.jsonl", row(1, label=True), row(2, gold="up"))
    known = {"prompt": "Question number 0?", "completion": "Answer number 0."}
    known["prompt"] = [{"role": "system", "content": "Be brief."}, *waiting.prompt.messages]
    before = Counter(Completion.objects.values_list("pk", "gold", "vote_count"))

    job = load(
        tmp_path / "b.jsonl",
        row(1, gold="up"),  # has a vote
        {**known, "gold": "up", "label": True},  # is in the queue
        row(2, gold="up"),  # is gold already
        row(2, gold="down"),
        row(2, label=False),
        row(2, label=True),
        row(3, gold="up"),
        row(3, gold="up"),
        row(3, label=False),
        row(4, label=True),
        row(4, gold="up"),
        row(5, gold="true"),
        row(5, gold="up", label=False),
        {"prompt": "Q6", "chosen": "a", "rejected": "b", "gold": "up"},
    )

    assert [(n, reason[:40]) for n, reason in refused(job)] == [
        (12, "gold is 'true', not the right verdict, u"),
        (13, "label and gold contradict each other"),
        (14, "gold needs a single answer, and this row"),
        (1, NOT_MADE_GOLD[:40]),
        (2, NOT_MADE_GOLD[:40]),
        (4, GOLD_OTHERWISE[:40]),
        (5, GOLD_OTHERWISE[:40]),
        (9, GOLD_OTHERWISE[:40]),
        (11, NOT_MADE_GOLD[:40]),
    ]
    assert (job.imported, job.gold, job.duplicates) == (2, 1, 3)
    assert before < Counter(Completion.objects.values_list("pk", "gold", "vote_count"))
    assert not Vote.objects.filter(completion=waiting).exists()


def test_gold_of_a_non_admin_is_refused_and_other_rows_are_imported(
    project: Project, annotator: User, tmp_path: Path
) -> None:
    rows = (row(1, gold="up"), row(2, label=True))

    job = load(tmp_path / "a.jsonl", *rows, by=annotator.email)
    assert refused(job) == [(1, GOLD_FOR_ADMINS)]
    assert (job.imported, GoldItem.objects.count()) == (1, 0)

    project.memberships.filter(user=annotator).update(role=Role.ADMIN)
    again = load(tmp_path / "a.jsonl", *rows, by=annotator.email)
    assert (again.gold, again.duplicates) == (1, 1)


def test_preview_shows_gold(project: Project, admin: User) -> None:
    content = b"prompt,completion,gold\nQ1,A1,up\nQ2,A2,\n"
    job = import_upload(project=project, by=admin, upload=SimpleUploadedFile("a.csv", content))

    first, second = preview(job)

    assert [(c.gold, c.verdict) for c in first.candidates] == [("up", None)]
    assert second.reason == "the label is missing"
