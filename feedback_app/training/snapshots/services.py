"""Freezing a project's examples into a snapshot."""

from feedback_app.feedback.models import Project
from feedback_app.training.models import (
    Snapshot,
    SnapshotItem,
)
from feedback_app.training.snapshots.caps import PersonCap, SnapshotTotals


def snapshot_freeze(*, project: Project, cap: PersonCap, totals: SnapshotTotals) -> Snapshot:
    """Copy every example as it is now, under the cap on one person's votes.

    Call it in the transaction that creates the run, with the cap and totals computed there.
    """
    snapshot = Snapshot.objects.create(
        project=project,
        left_out=totals.left_out,
        left_out_people=totals.people,
        **totals.counts,
    )
    examples = project.examples.order_by("pk").iterator(chunk_size=2_000)
    SnapshotItem.objects.bulk_create(
        (
            SnapshotItem(
                snapshot=snapshot,
                completion_id=example.pk,
                desirable=values.desirable,
                weight=values.weight,
                split=example.split,
            )
            for example in examples
            if (values := cap.examples.get(example.pk, example)) is not None
        ),
        batch_size=1_000,
    )
    return snapshot
