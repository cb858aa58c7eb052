"""Runs whose gate asks people, and votes for the candidate or live whatever their sides."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from django.test import Client
from django.urls import reverse
from django.utils import timezone

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project, Prompt
from feedback_app.training.gate.people.counts import PairCounts
from feedback_app.training.gate.people.services import pair_judge
from feedback_app.training.gate.people.sides import candidate_is_left
from feedback_app.training.gate.services import gate_settings, gate_settings_save
from feedback_app.training.models import Adapter, BlindPair, PairBatch, PairVote
from feedback_app.training.runs.claims import run_claim
from feedback_app.training.runs.services import run_finish, run_request
from tests.conftest import prompts_make
from tests.training.gate.reports import gate_report

CANDIDATE, LIVE = PairVote.Choice.CANDIDATE, PairVote.Choice.LIVE


def prompts_of(project: Project, count: int) -> list[Prompt]:
    """Return so many imported prompts that only these tests use."""
    return prompts_make(project, [f"Question {number} of the gate?" for number in range(count)])


def people_report(
    project: Project, name: str, *, prompts: int = 100, same: int = 0, **changed: Any
) -> dict[str, Any]:
    """Return a report in which both versions' first answers differ, but for `same` prompts."""
    report = gate_report(name, prompts=prompts, **changed)
    for number, prompt in enumerate(prompts_of(project, prompts)):
        entry = report["answers"][number]
        entry["id"] = str(prompt.pk)
        for version, answers in entry["answers"].items():
            word = "Plain" if version != name or number < same else "Fresh"
            answers[0]["text"] = f"{word} answer number {number}."
    return report


def people_run(project: Project, by: User, *, auto_release: bool = False, **report: Any) -> Adapter:
    """Return the version of a run that has just ended, in a project whose gate asks people."""
    gate_settings_save(
        project=project, settings=replace(gate_settings(project), primary="people"), by=by
    )
    run = run_request(project=project, by=by, auto_release=auto_release)
    claim = run_claim(run.pk)
    assert claim is not None
    name = project.adapter_name(run.number)
    path = f"adapters/{run.number}"
    found = people_report(project, name, **report)
    adapter = run_finish(claim=claim, path=path, sha256="0", report=found, fit={})
    assert adapter is not None
    return adapter


def side(pair: BlindPair, user: User, choice: str) -> PairVote.Side:
    """Return where a person has to click for a choice."""
    if choice in (CANDIDATE, LIVE):
        left = (choice == CANDIDATE) == candidate_is_left(pair, user)
        return PairVote.Side.LEFT if left else PairVote.Side.RIGHT
    return PairVote.Side(choice)


def judge(pairs: Iterable[BlindPair], by: User, choice: str) -> None:
    for pair in pairs:
        pair_judge(pair=pair, by=by, side=side(pair, by, choice))


def click(client: Client, pair: BlindPair, by: User, choice: str) -> Any:
    """Post a choice as the page does."""
    address = reverse("pair-vote", args=[pair.batch.project.slug, pair.pk])
    return client.post(address, {"choice": side(pair, by, choice)})


def batch_of(adapter: Adapter, *, pairs: int = 12, end: str = "", text: str = "") -> PairBatch:
    """Create a batch without a run that asked people, for pages."""
    batch = PairBatch.objects.create(
        adapter=adapter,
        project=adapter.project,
        end=end,
        ended_at=timezone.now() if end else None,
        decided_at=timezone.now() if end else None,
        counts=PairCounts(pairs, 1, judged=pairs, wins=pairs, end=end).as_json() if end else {},
    )
    BlindPair.objects.bulk_create(
        BlindPair(
            batch=batch,
            position=position,
            prompt=prompt,
            messages=[{"role": "user", "content": f"Question {position}?\n{text}"}],
            candidate_text=f"Fresh answer {position}. {text}",
            live_text=f"Plain answer {position}.",
        )
        for position, prompt in enumerate(prompts_of(adapter.project, pairs))
    )
    return batch
