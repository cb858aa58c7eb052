"""Services of blind pairs: beginning a batch, votes, and its end.

The pairs are test prompts. Votes on them are in a table of their own and make no examples, so that
nothing is learned from the test split.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from django.db import transaction
from django.utils import timezone

from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project, Source
from feedback_app.training.gate.judge.evaluation import answer_pairs
from feedback_app.training.gate.judge.questions import Pair
from feedback_app.training.gate.people.counts import FAILED, PairCounts, pair_counts_of
from feedback_app.training.gate.people.limits import batches_at_limit
from feedback_app.training.gate.people.rule import people_read
from feedback_app.training.gate.people.sides import choice_of
from feedback_app.training.gate.results import LEAST_PROMPTS
from feedback_app.training.gate.rules import GateResult
from feedback_app.training.gate.settings import GateSettings
from feedback_app.training.models import Adapter, BlindPair, GateOutcome, PairBatch, PairVote
from feedback_app.training.stats.sequential import State
from feedback_app.web.errors import Conflict, UserError

ENDED = "These pairs have been decided: your choice is no longer needed, and was not stored."
HALF = "You have judged half of these pairs: the others are for other people."
TAKEN = "Somebody else has judged this pair meanwhile: your choice was not stored."


def shown_pairs(
    report: Mapping[str, Any], *, project: Project, candidate: str
) -> list[tuple[int, Pair]]:
    """Return the prompts that annotators may read, each with the answers of candidate and live.

    Imported ones, as in their queue: the questions of the demo and of the API are private.
    """
    numbers = [int(entry["id"]) for entry in report["answers"] if entry["id"].isdecimal()]
    imported = set(
        project.prompts.filter(pk__in=numbers, source=Source.IMPORT).values_list("pk", flat=True)
    )
    keys = {str(pk) for pk in imported}
    answers = [entry for entry in report["answers"] if entry["id"] in keys]
    pairs = answer_pairs({**report, "answers": answers}, candidate=candidate)
    return [(int(pair.key), pair) for pair in pairs]


def report_with_people(
    report: Mapping[str, Any], settings: GateSettings, *, project: Project, candidate: str
) -> Mapping[str, Any]:
    """Return the report with the number of pairs for people, if the gate's rules ask them."""
    if settings.primary != "people":
        return report
    pairs = [pair for _, pair in shown_pairs(report, project=project, candidate=candidate)]
    different = sum(not pair.equal for pair in pairs)
    return {**report, "people": PairCounts(different, len(pairs) - different).as_json()}


def report_without_people(report: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the report of a version that a guard has failed: people are spared the work."""
    return {**report, "people": replace(PairCounts(**report["people"]), end=FAILED).as_json()}


def batch_begin(*, adapter: Adapter, gate: GateResult) -> PairBatch | None:
    """Create the pairs of a new version, if people are asked. Call it in the transaction that
    creates the version."""
    found = adapter.report.get("people")
    if found is None or gate.outcome != GateOutcome.UNDECIDED:
        return None
    counts = PairCounts(**found)
    if counts.pairs < LEAST_PROMPTS:
        return None
    batch = PairBatch.objects.create(adapter=adapter, project=adapter.project, same=counts.same)
    shown = shown_pairs(adapter.report, project=adapter.project, candidate=adapter.name)
    BlindPair.objects.bulk_create(
        BlindPair(
            batch=batch,
            position=position,
            prompt_id=prompt,
            messages=[message for message in pair.messages if message["role"] != "system"],
            candidate_text=pair.first,
            live_text=pair.second,
        )
        for position, (prompt, pair) in enumerate(
            (prompt, pair) for prompt, pair in shown if not pair.equal
        )
    )
    return batch


def pair_judge(*, pair: BlindPair, by: User, side: PairVote.Side) -> None:
    """Store or change a person's choice, as they see the pair.

    Ends the batch if that decides it. Raises Conflict if the batch has ended meanwhile, or if the
    pair is not this person's to judge: a second opinion would cancel another person's choice.
    """
    with transaction.atomic():
        batch = _locked(pair)
        if not BlindPair.objects.open_for(by).filter(pk=pair.pk).exists():
            raise Conflict(TAKEN)
        judged = PairVote.objects.filter(pair=pair, user=by).exists()
        if not judged and batch.pk in batches_at_limit(by, batch.project):
            raise Conflict(HALF)
        PairVote.objects.update_or_create(
            pair=pair, user=by, defaults={"choice": choice_of(pair, by, side), "side": side}
        )
        batch_end_if_decided(batch)


def pair_undo(*, pair: BlindPair, by: User) -> None:
    """Withdraw a person's choice. Raises Conflict if the batch has ended meanwhile."""
    with transaction.atomic():
        _locked(pair)
        if not PairVote.objects.filter(pair=pair, user=by).delete()[0]:
            raise UserError("There was nothing to undo.")


def _locked(pair: BlindPair) -> PairBatch:
    """Return the pair's open batch, locked: of two last votes, the second sees the first."""
    rows = PairBatch.objects.open().select_for_update(no_key=True, of=("self",))
    batch = rows.filter(pk=pair.batch_id).first()
    if batch is None:
        raise Conflict(ENDED)
    return batch


def batch_end_if_decided(batch: PairBatch) -> None:
    """End a locked batch if the votes decide it, or if no pair is left."""
    counts = pair_counts_of(batch)
    if people_read(counts).state != State.OPEN and not counts.of_one_person:
        _end(batch, counts, PairBatch.End.DECIDED)
    elif counts.finished:
        _end(batch, counts, PairBatch.End.JUDGED)


def batch_close(*, batch: PairBatch, by: User) -> None:
    """End a batch early; its verdict is what the votes say until now. Raises UserError."""
    with transaction.atomic():
        locked = PairBatch.objects.select_for_update(no_key=True).get(pk=batch.pk)
        if locked.end:
            raise UserError("These pairs have ended already.")
        _end(locked, pair_counts_of(locked), PairBatch.End.CLOSED)
        audit(
            project=locked.project,
            actor=by,
            action="gate.pairs_close",
            target=str(batch.adapter),
        )


def _end(batch: PairBatch, counts: PairCounts, end: PairBatch.End) -> None:
    batch.end, batch.ended_at = end, timezone.now()
    batch.counts = replace(counts, end=end.value).as_json()
    batch.save(update_fields=["end", "ended_at", "counts"])
