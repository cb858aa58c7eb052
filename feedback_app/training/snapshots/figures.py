"""What a snapshot would take, as figures that a worker counts in a large project."""

from dataclasses import asdict
from typing import Any

from feedback_app.feedback.figures.services import Counted, figures_read
from feedback_app.feedback.models import Project
from feedback_app.training.snapshots.caps import (
    SnapshotTotals,
    people_cap,
    snapshot_totals,
    snapshot_totals_cached,
)

NAME = "snapshot"


def snapshot_figures(project: Project) -> Counted:
    """Return the SnapshotTotals that the Train page shows."""
    found = figures_read(
        project=project,
        name=NAME,
        count=lambda project: asdict(snapshot_totals_cached(project)),
        rows=project.votes.all(),
    )
    value = None if found.value is None else SnapshotTotals(**found.value)
    return Counted(value, found.at)


def snapshot_count(project: Project) -> dict[str, Any]:
    """Count the figures again, for a worker."""
    return asdict(snapshot_totals(project, people_cap(project)))
