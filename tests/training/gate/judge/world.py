"""A project in which people like good answers, and evaluations of a version that writes them."""

import json
from typing import Any

from django.db import transaction

from feedback_app.accounts.models import User
from feedback_app.feedback.examples.services import examples_refresh
from feedback_app.feedback.models import Project, Source, Verdict, Vote
from feedback_app.feedback.prompts.completions import Answer, completion_create
from feedback_app.feedback.prompts.services import prompt_get_or_create
from feedback_app.training.gate.evaluation import evaluation_directory
from feedback_app.training.models import Run
from tests.training.gate.reports import gate_report

PROMPTS = 60


def votes_for_good_answers(project: Project, by: User, *, prompts: int = PROMPTS) -> None:
    """Give each prompt a good answer with an up and a bad one with a down."""
    votes = [
        Vote(
            completion=_answer(project, f"Voted {number}?", f"{text} to {number}"),
            project=project,
            user=by,
            verdict=Verdict.UP if "good" in text else Verdict.DOWN,
            source=Source.ANNOTATE,
            guidelines_number=0,
        )
        for number in range(prompts)
        for text in ("A good answer", "Some bad answer")
    ]
    with transaction.atomic():
        Vote.objects.bulk_create(votes)
        examples_refresh(vote.completion_id for vote in votes)


def _answer(project: Project, question: str, text: str) -> Any:
    prompt = prompt_get_or_create(
        project=project, messages=[{"role": "user", "content": question}], source=Source.IMPORT
    )
    made = Answer(
        text=text, version="base", finish_reason="stop", prompt_token_ids=None, token_ids=None
    )
    return completion_create(project=project, prompt=prompt, answer=made, source=Source.IMPORT)


def report_write(run: Run, *, good: float = 0.8, prompts: int = PROMPTS) -> None:
    """Write the report of an evaluation in which the new version wins by `good` of the prompts, and
    live wins the others."""
    evaluation_directory(run).mkdir(parents=True, exist_ok=True)
    report = gate_report(run.project.adapter_name(run.number), prompts=prompts)
    for number, entry in enumerate(report["answers"]):
        (new, *_), (old, *_) = (entry["answers"][name] for name in report["candidates"])
        better, usual = f"A good answer {number}", f"Some bad answer {number}"
        new["text"], old["text"] = (better, usual) if number % 5 < 5 * good else (usual, better)
    (evaluation_directory(run) / "report.json").write_text(json.dumps(report))
