"""The gate's second verdict on a version: once people have judged its pairs."""

from django.db import transaction
from django.utils import timezone

from feedback_app.training.gate.people.services import batch_end_if_decided
from feedback_app.training.gate.services import gate_decide_again
from feedback_app.training.models import Adapter, BlindPair, PairBatch, Run
from feedback_app.training.runs.services import run_event_write, run_note


def batches_end() -> None:
    """End open batches without a pair that somebody could judge.

    Votes do that themselves; but the last pairs may go with the prompts of an erased person.
    """
    askable = BlindPair.objects.open().unjudged().values("batch")
    stuck = PairBatch.objects.open().exclude(pk__in=askable)
    for pk in list(stuck.values_list("pk", flat=True)):
        with transaction.atomic():
            batch = PairBatch.objects.select_for_update(no_key=True).get(pk=pk)
            if not batch.end:
                batch_end_if_decided(batch)


def batch_decide(batch_id: int) -> None:
    """Put the verdict of an ended batch into its version's gate report. Safe to repeat.

    Decided by the rules of the first verdict and the stored measures; nothing is sampled.
    """
    rows = PairBatch.objects.undecided().select_related("adapter__run__project")
    batch = rows.filter(pk=batch_id).first()
    if batch is None:
        return
    adapter, people = batch.adapter, {"people": batch.counts}
    gate = gate_decide_again(adapter, {**adapter.report, **people})
    with transaction.atomic():
        if not PairBatch.objects.undecided().filter(pk=batch_id).update(decided_at=timezone.now()):
            return  # a second delivery of the message
        # read again: questions may have been deleted from it meanwhile
        stored = Adapter.objects.select_for_update().get(pk=adapter.pk).report
        Adapter.objects.filter(pk=adapter.pk).update(
            report={**stored, **people},
            gate=gate.as_json(),
            gate_outcome=gate.outcome,
            gate_won=gate.won,
        )
        adapter.refresh_from_db(fields=["gate_outcome", "gate_won"])
        run_note(run=adapter.run, text=f"People have judged {adapter.name}. {gate.sentence}")
        run_event_write(adapter.run, status=Run.Status.SUCCEEDED, adapter=adapter)
