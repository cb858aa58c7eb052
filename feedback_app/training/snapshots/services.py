"""Freezing a project's examples into a snapshot."""

from feedback_app.feedback.models import Project
from feedback_app.training.models import (
    Snapshot,
    SnapshotItem,
)
from feedback_app.training.snapshots.caps import people_cap


def snapshot_freeze(*, project: Project) -> Snapshot:
    """Copies every example as it is now, with at most so many votes of one person as the project
    takes. Call it in the transaction that makes the run."""
    cap = people_cap(project)
    snapshot = Snapshot.objects.create(
        project=project,
        left_out=cap.left_out,
        left_out_people=cap.people,
        **cap.counts(project.examples.counts()),
    )
    examples = project.examples.order_by("pk").iterator(chunk_size=2_000)
    SnapshotItem.objects.bulk_create(
        (
            SnapshotItem(
                snapshot=snapshot,
                completion_id=example.pk,
                desirable=amounts.desirable,
                weight=amounts.weight,
                split=example.split,
            )
            for example in examples
            if (amounts := cap.examples.get(example.pk, example)) is not None
        ),
        batch_size=1_000,
    )
    return snapshot
