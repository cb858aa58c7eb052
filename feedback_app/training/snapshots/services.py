"""Freezing a project's examples into a snapshot."""

from itertools import chain

from feedback_app.feedback.models import Project
from feedback_app.training.models import (
    Snapshot,
    SnapshotItem,
)
from feedback_app.training.snapshots.caps import PersonCap, SnapshotTotals


def snapshot_freeze(*, project: Project, cap: PersonCap, totals: SnapshotTotals) -> Snapshot:
    """Copy every example as it is now, under the cap on one person's votes; ties that are an
    example under the cap as well.

    Call it in the transaction that creates the run, with the cap and totals computed there.
    """
    snapshot = Snapshot.objects.create(
        project=project,
        left_out=totals.left_out,
        left_out_people=totals.people,
        **totals.counts,
    )
    examples = project.examples.order_by("pk").iterator(chunk_size=2_000)
    taken = (
        (example.pk, example.split, values)
        for example in examples
        if (values := cap.examples.get(example.pk, example)) is not None
    )
    restored = ((pk, example.split, example.values) for pk, example in cap.restored.items())
    SnapshotItem.objects.bulk_create(
        (
            SnapshotItem(
                snapshot=snapshot,
                completion_id=pk,
                desirable=values.desirable,
                weight=values.weight,
                split=split,
            )
            for pk, split, values in chain(taken, restored)
        ),
        batch_size=1_000,
    )
    return snapshot
